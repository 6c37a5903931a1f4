from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Set rows in columns under a head; the columns named in ``right`` are flush right, as figures are.

    A row may end early, and its last cell makes no column wider.
    """
    inner = [head, *(row[:-1] for row in rows)]
    widths = [max(len(row[column]) for row in inner if column < len(row)) for column in range(len(head))]
    return "\n".join(_line(row, head, widths, right) for row in (head, *rows))


def _line(row: Sequence[str], head: Sequence[str], widths: Sequence[int], right: Sequence[str]) -> str:
    cells = zip(row, head, widths, strict=False)
    return "  ".join(f"{cell:{'>' if title in right else '<'}{width}}" for cell, title, width in cells).rstrip()
