"""The bars of tasks, below that of their map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anymap.progress._titles import title
from anymap.progress._tqdm import open_bar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anymap.progress._tqdm import Bar
    from anymap.progress.events import TaskProgress

__all__ = ["Rows"]

_MOST = 8
"""Rows. What more there is is counted."""
_WORTH_A_ROW = 0.3
"""Seconds that a task lasts before it gets one."""
_PASSED_ON = ("ascii", "bar_format", "dynamic_ncols", "file", "mininterval", "ncols", "nrows")
"""What the options of the map's bar say for these too."""


class Rows:
    """As many bars as there are tasks, within reason. A task that finds no room gets the first row that is free."""

    def __init__(self, bar: Bar, options: Mapping[str, Any]) -> None:
        self._is_widget = hasattr(bar, "container")
        self._options = {name: options[name] for name in _PASSED_ON if name in options} | {"leave": False}
        if hasattr(bar, "cell"):
            self._options["cell"] = bar.cell
        self._shown: dict[str, Bar] = {}
        self._unseen: dict[str, TaskProgress] = {}
        self._free: list[Bar] = []
        """Widgets that no task has just now: a closed one would leave its place in the notebook for ever."""

    @staticmethod
    def fit_below(bar: Bar) -> bool:
        """Tell whether several bars can be drawn where this one is: a file has no way back up."""
        if hasattr(bar, "container") or hasattr(bar, "cell"):
            return True
        try:
            return not bar.gui and bool(bar.fp.isatty())
        except (AttributeError, ValueError):
            return False

    @property
    def unseen(self) -> int:
        """How many tasks have no row although they should."""
        return len(self._unseen)

    def show(self, event: TaskProgress) -> None:
        if event.ended:
            self._end(event.key)
        elif (row := self._shown.get(event.key)) is not None:
            _draw(row, event)
        elif event.seconds >= _WORTH_A_ROW:
            self._unseen[event.key] = event
            self._fill()

    def close(self) -> None:
        for row in (*self._shown.values(), *self._free):
            row.close()
        self._shown.clear()
        self._unseen.clear()

    def drop(self) -> None:
        """Draw nothing any more."""
        for row in (*self._shown.values(), *self._free):
            row.disable = True

    def _end(self, key: str) -> None:
        self._unseen.pop(key, None)
        row = self._shown.pop(key, None)
        if row is None:
            return
        if self._is_widget:
            row.container.layout.display = "none"
            self._free.append(row)
        else:
            row.close()
        self._fill()

    def _fill(self) -> None:
        while self._unseen and len(self._shown) < _MOST:
            key = next(iter(self._unseen))
            event = self._unseen.pop(key)
            self._shown[key] = row = self._row(event)
            _draw(row, event)

    def _row(self, event: TaskProgress) -> Bar:
        if not self._free:
            return open_bar(None, self._options, desc=_title(event), total=event.total)
        row = self._free.pop()
        row.reset(event.total)
        row.container.layout.display = None
        return row


def _draw(row: Bar, event: TaskProgress) -> None:
    row.set_elapsed(event.seconds)
    row.set_total(event.total)
    row.set_description_str(_title(event), refresh=False)
    row.update(event.done - row.n)


def _title(event: TaskProgress) -> str:
    return f"{title(event)}: "
