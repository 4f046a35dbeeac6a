"""A table of text: the same rows for the page and for Markdown; and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Rows of text with their heads. `classes` are one word a row for the page; `left`: columns that hold words."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    classes: Sequence[str] = ()
    left: frozenset[int] = field(default_factory=lambda: frozenset({0}))

    @property
    def marked(self) -> list[tuple[str, Sequence[str]]]:
        """(class, cells) of every row."""
        return list(zip(self.classes or [""] * len(self.rows), self.rows, strict=True))

    def only(self, word: str, there: bool = True) -> Table:
        """The rows of class `word`, or all the others."""
        kept = [(c, cells) for c, cells in self.marked if (c == word) is there]
        return Table(self.heads, [cells for _, cells in kept], [c for c, _ in kept], self.left)

    def markdown(self) -> str:
        """A Markdown table; words left, numbers right."""
        rule = ["---" if n in self.left else "---:" for n in range(len(self.heads))]
        lines = [self.heads, rule, *self.rows]
        return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def csv_text(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """RFC 4180 with plain newlines; None is an empty cell."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([heads, *rows])
    return stream.getvalue()
