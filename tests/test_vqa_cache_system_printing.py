"""What a narrow terminal shows: names whole in tables, and the bar, the total and the time left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import MofNCompleteColumn

from vqa_cache.system.printing import giving_way, print_table, progress_bar

NAME = "image/timm.tf_efficientnet_lite0/blocks.3-grid4-size96/float16@1234abcd"
ROWS = [{"table": NAME, "rows": "5,000", "shape": "4x4x192", "spec": "pkg:efficientnet:grid=4"}]
WIDE = 130


def printed(width: int) -> list[str]:
    shown = io.StringIO()
    print_table(ROWS, list(ROWS[0]), ("rows",), Console(file=shown, width=width))
    return [line.strip() for line in shown.getvalue().splitlines() if line.strip()]


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_name_is_never_cut_where_a_line_cannot_hold_all(width: int) -> None:
    assert printed(width) == [NAME, "rows 5,000, shape 4x4x192, spec pkg:efficientnet:grid=4"]


def test_a_wide_terminal_has_a_line_a_row() -> None:
    head, _, row = printed(WIDE)
    assert head.split() == ["table", "rows", "shape", "spec"]
    assert row.split() == list(ROWS[0].values())


@pytest.mark.parametrize("width", [80, 120])
def test_a_bar_its_total_and_the_time_left_stay(width: int) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=width, force_terminal=True, color_system=None)
    figures = giving_way("{task.fields[figures]}", ratio=3)
    bar = progress_bar(console, MofNCompleteColumn(), figures)
    bar.add_task(NAME, total=5000, completed=1844, figures="epoch 3/12, " + "loss 0.1, " * 9)
    console.print(bar.get_renderable())
    [line] = shown.getvalue().splitlines()
    assert len(line) <= width
    assert line.startswith("image/")
    assert all(part in line for part in ("…", "━", "1844/5000", "epoch 3/12", "--:--"))
