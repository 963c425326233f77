"""One's own data: `<root>/<split>.jsonl`, one JSON object a line.

    {"image": "photos/1.jpg", "question": "is it raining?", "answer": "no"}

The keys are those of `data.records`. A file in which no line has an answer is an unlabelled split;
where some line has one, a line without is a missing annotation. Blank lines are skipped, other keys
not read. Files are streamed, never held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from data.json_file import json_lines
from data.records import KEYS, Malformed, Record, Records, shown


class Jsonl(Records):
    """Adapter of JSON lines, see the module's docstring for the fields."""

    name = "jsonl"

    def found(self) -> Iterator[str]:
        # no hidden files: "._train.jsonl" is what macOS writes beside a copied train.jsonl
        return (path.stem for path in self.root.glob("[!.]*.jsonl"))

    def remarks(self, split: str) -> list[str]:
        """Keys that are not read, a misspelt one among them: one line each."""
        unread: Counter[str] = Counter()
        for _, row in self.rows(split):
            with suppress(Malformed):  # told by `examples`
                unread.update(set(self._checked(row, split)) - set(KEYS))
        return [
            f"{self.root / split}.jsonl: key {shown(key)} of {count:,} lines is not read; known: "
            f"{', '.join(KEYS)}"
            for key, count in sorted(unread.items())
        ]

    def expected_files(self) -> list[str]:
        return ["train.jsonl", "val.jsonl", "test.jsonl"]

    def rows(self, split: str) -> Iterator[tuple[str, Record | Malformed]]:
        return json_lines(self.root / f"{split}.jsonl")

    def record(self, row: Record, split: str) -> Record:
        return row
