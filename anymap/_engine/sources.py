"""Where the rows of a map come from."""

from __future__ import annotations

import logging
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SLOW = 0.001
"""Seconds. An input that takes longer for a row may take for ever: what is there is sent, if a worker is idle."""
_STUCK = 10.0
"""Seconds after which an input that keeps finished results waiting is worth a word."""


class Source(Protocol):
    """Gives rows to the iterating thread, as many as there is room for."""

    ended: bool
    """There are no more rows."""
    slow: bool
    """The next row may be long in coming: what is there is sent, though it fills no chunk."""

    def pull(self, most: int, stage: Callable[[Sequence[Any]], None], arrivals: Sequence[object]) -> bool:
        """Stage up to ``most`` rows, and no more once something has arrived; return whether that changed anything."""
        ...

    def speak_if_stuck(self) -> None:
        """Called by the supervisor while something has arrived: say it if :meth:`pull` has kept it for long."""
        ...


class Rows:
    """What an iterator gives. ``prompt``: that takes no time and waits for nothing."""

    def __init__(self, rows: Iterator[Any], *, prompt: bool) -> None:
        self.ended = False
        self.slow = False
        self._rows = rows
        self._prompt = prompt
        self._pulling_since: float | None = None

    def pull(self, most: int, stage: Callable[[Sequence[Any]], None], arrivals: Sequence[object]) -> bool:
        if self._prompt:
            rows = list(islice(self._rows, most))
            stage(rows)
            self.ended = not rows
        else:
            self._pull_watchfully(most, stage, arrivals)
        return True

    def _pull_watchfully(self, most: int, stage: Callable[[Sequence[Any]], None], arrivals: Sequence[object]) -> None:
        """Pull from an input that may wait for results: nothing that is ready may be kept back meanwhile."""
        clock, ended = time.monotonic, True
        self._pulling_since = began = clock()
        for row in islice(self._rows, most):
            stage((row,))
            ended = False
            self.slow = clock() - began > _SLOW
            if arrivals or self.slow:
                break
        self._pulling_since = None
        self.ended = ended

    def speak_if_stuck(self) -> None:
        since = self._pulling_since
        if since is None or time.monotonic() - since < _STUCK:
            return
        self._pulling_since = None
        logging.getLogger("anymap").warning(
            "the input of a map has given nothing for %d s, and finished results wait for it: if it needs those "
            "results to go on, say by window= how many items it can give ahead of them",
            _STUCK,
        )
