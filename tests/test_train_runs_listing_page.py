"""The list of runs as a page: escaped, whole, and it sorts and filters in a browser."""

from __future__ import annotations

import re
from pathlib import Path

from browser import LISTENS, page_after_acts

from train.runs.listing_page import page

HOSTILE = '"><script>alert(1)</script>'
ROWS = [
    {"run": "a-1", "accuracy": 0.25, "seed": 10},
    {"run": HOSTILE, "accuracy": None, "seed": 9},
    {"run": "b-2", "accuracy": 0.75, "seed": 2},
]
COLUMNS = ["run", "accuracy", "seed"]
ACTS = """<script>
document.querySelectorAll("th")[1].click();
document.title = [...document.querySelectorAll("tbody tr")].map((r) => r.cells[2].textContent);
document.querySelectorAll("th")[2].click();
document.querySelectorAll("th")[2].click();
document.title += " " + [...document.querySelectorAll("tbody tr")].map((r) => r.cells[2].textContent);
const box = document.querySelector("input");
box.value = "b-2"; box.oninput({target: box});
document.title += " " + document.querySelectorAll("tbody tr:not([hidden])").length + problems;
</script>"""  # noqa: E501


def test_a_page_holds_every_row_and_nothing_of_others() -> None:
    text = page([("runs", ROWS, COLUMNS), ("sweeps", [], [])])
    assert text.count("<tr>") == 4
    assert HOSTILE not in text
    assert "sweeps" not in text
    assert not re.search(r"https?:|src=", text)


def test_the_page_sorts_and_filters_in_a_browser(tmp_path: Path) -> None:
    text = page([("runs", ROWS, COLUMNS)])
    acted = text.replace("<title>", f"{LISTENS}<title>").replace("</html>", f"{ACTS}</html>")
    (tmp_path / "runs.html").write_text(acted)
    shown = page_after_acts((tmp_path / "runs.html").as_uri(), tmp_path)
    [title] = re.findall(r"<title>(.*?)</title>", shown)
    assert title == "2,10,9 2,9,10 1"
