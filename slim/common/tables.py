"""Tables as Markdown and, in notebooks, as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape


@dataclass(frozen=True)
class Table:
    """A table of text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = field(default=(), kw_only=True)  # columns aligned to the right

    def __str__(self) -> str:
        """Returns the table in Markdown."""
        rule = ["---:" if i in self.numeric else "---" for i in range(len(self.header))]
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.header, rule, *self.rows))

    def _repr_html_(self) -> str:
        """Returns the table in HTML, which notebooks show."""
        lines = [self._html_row("th", self.header), *(self._html_row("td", r) for r in self.rows)]
        return f"<table>{''.join(lines)}</table>"

    def _html_row(self, tag: str, cells: Sequence[str]) -> str:
        sides = ["right" if i in self.numeric else "left" for i in range(len(cells))]
        parts = [
            f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        ]
        return f"<tr>{''.join(parts)}</tr>"
