"""Bars as text in a notebook without widgets: a map's bar and those of its tasks are the lines of one output."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

from anymap.progress._tqdm import Bar

__all__ = ["CellBar"]


class CellBar(Bar):
    """A bar that is a line of an output of the running cell."""

    def __init__(self, *args: Any, cell: Cell | None = None, **kwargs: Any) -> None:
        self.cell = cell or Cell()
        # tqdm writes line ends and blanks around what it displays. They have no place here.
        super().__init__(*args, **{**kwargs, "file": _Nowhere()})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:  # noqa: ARG002 - tqdm's signature
        """Show the bar as it stands, or ``msg`` in its place."""
        self.cell.show(self, str(self) if msg is None else msg)


class Cell:
    """An output of the running cell with a line for each bar."""

    def __init__(self) -> None:
        self._lines: dict[CellBar, str] = {}
        self._handle: Any = None

    def show(self, bar: CellBar, line: str) -> None:
        """Show the line of a bar; an empty one takes it away."""
        if line:
            self._lines[bar] = line
        else:
            self._lines.pop(bar, None)
        self._draw("\n".join(self._lines.values()))

    def _draw(self, text: str) -> None:
        display: Any = importlib.import_module("IPython.display").display

        data = {"text/plain": text}
        if self._handle is None:
            _give_hint()
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


class _Nowhere(io.TextIOBase):
    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)


_hinted = False


def _give_hint() -> None:
    """Say once how to get widgets."""
    global _hinted  # noqa: PLW0603 - a fact about the process
    if not _hinted:
        _hinted = True
        if sys.stderr is not None:
            sys.stderr.write("anymap: progress is shown as text; for widgets: pip install ipywidgets\n")
