"""The README and the pages of docs/: their blocks, the commands in them, and how one is run.

A block's first line is its language and, perhaps, a mark: ```sh hub. The marks of NOT_HERE say what
a command needs that a test has not; the others are the folder that a block is typed in.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_HERE = ("dataset", "hub", "cluster", "gpu", "long")
_FENCE = re.compile(r"^```(\w*) ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    language: str
    mark: str
    text: str

    @property
    def lines(self) -> list[str]:
        """Commands, without the comments behind them."""
        return [line for raw in self.text.splitlines() if (line := raw.partition("  #")[0].strip())]


def blocks(language: str, *pages: str) -> list[Block]:
    """The blocks in a language, of all pages unless some are named."""
    chosen = [page for page in PAGES if not pages or page.name in pages]
    return [
        Block(page.name, *found.groups())
        for page in chosen
        for found in _FENCE.finditer(page.read_text())
        if found[1] == language
    ]


def inline_commands(page: Path) -> Iterator[str]:
    """Commands in the text, `like this`, and in blocks that name no language."""
    text = page.read_text()
    yield from re.findall(r"`((?:python -m|vqa-cache|make) [^`…]+)`", _FENCE.sub("", text))
    for found in _FENCE.finditer(text):
        if not found[1]:
            lines = found[3].splitlines()
            yield from (line for line in lines if line.startswith(("python -m ", "vqa-cache ")))


@cache
def modules() -> dict[str, click.Command]:
    """What can be typed behind `python -m`: module -> its command."""
    found = {}
    for package in ("benchmarks", "data", "precompute", "train", "vqa_cache"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            module = name.removesuffix(".__main__")
            runs = name != module or '__name__ == "__main__"' in path.read_text()
            if runs and not module.startswith("benchmarks."):
                loaded = importlib.import_module(name)
                command = getattr(loaded, "command", None) or loaded.main
                assert isinstance(command, click.Command), name
                found[module] = command
    return found


def command_of(line: str) -> tuple[click.Command, list[str]]:
    """The command of a line that begins with `python -m` or `vqa-cache`, and its arguments."""
    words = shlex.split(line, comments=True)
    if words[0] == "vqa-cache":
        words = ["python", "-m", "vqa_cache", *words[1:]]
    known = modules()
    assert words[:2] == ["python", "-m"], line
    assert words[2] in known, f"{line}: no module {words[2]}; there are {', '.join(known)}"
    return known[words[2]], words[3:]


def with_options(line: str) -> tuple[click.Command, list[str]]:
    """The command below all groups, NAME standing for any, and its arguments; every option is one
    that it has."""
    command, arguments = command_of(line)
    while isinstance(command, click.Group) and arguments and arguments[0].islower():
        below = command.get_command(click.Context(command), arguments[0])
        assert below is not None, f"{line}: no command {arguments[0]}"
        command, arguments = below, arguments[1:]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    known |= {"--help", "-h"}
    unknown = [word for word in arguments if word.startswith("--") and word not in known]
    assert not unknown, f"{line}: no option {', '.join(unknown)}; there are {', '.join(known)}"
    return command, arguments


def typed(line: str, *more: str) -> Result:
    """Run a line in this process and the current folder; it must end well."""
    command, arguments = command_of(line)
    done = CliRunner().invoke(command, [*arguments, *more], catch_exceptions=False)
    assert done.exit_code == 0, f"{line}: {done.output}"
    return done


def behind(line: str) -> list[str]:
    """The `python -m` lines that a line of make runs, without its installation."""
    told = subprocess.run(
        [*shlex.split(line, comments=True), "--dry-run", "VENV=/nowhere", "--no-print-directory"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = [part for part in told.splitlines() if part.startswith("/nowhere/bin/python -m ")]
    return [
        part.replace("/nowhere/bin/", "").rstrip() for part in found if " -m pip " not in part
        and " -m pytest" not in part
    ]  # fmt: skip


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: dict[str, int] = {}
    made = set()
    for title in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        made.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return made


def links(page: Path) -> list[str]:
    """Targets within the project, of pages and pictures."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in found if "://" not in target]


def names(value: Any) -> Iterator[click.Command]:
    """A command and all below it."""
    yield value
    if isinstance(value, click.Group):
        for name in value.list_commands(click.Context(value)):
            below = value.get_command(click.Context(value), name)
            assert below is not None
            yield from names(below)
