from __future__ import annotations

import logging
import sys

from anymap._errors import ConfigError
from anymap.progress._above import above_bars
from anymap.progress._seconds import check_seconds
from anymap.progress._troubles import troubles
from anymap.progress._where import beneath
from anymap.progress.events import Advanced, Event, Finished, Started

__all__ = ["LogSink"]


class LogSink:
    """Writes how far a map is as ``INFO`` lines of the logger ``anymap.progress``.

    A line comes when another tenth of the items is done, or else when ``every`` seconds have passed since the last
    one; where the number of items is unknown only time counts. One more line tells the end. Where logging is configured, its
    levels and handlers decide what is seen; where no logger has a handler, the lines go to stderr. One sink serves one
    map at a time.

    Args:
        logger: The logger, or its name.
        every: Seconds.

    Raises:
        ConfigError: An argument has a wrong value.
    """

    wants = frozenset({Started, Advanced, Finished})
    shows_maps = True

    def __init__(self, logger: logging.Logger | str = "anymap.progress", *, every: float = 10.0) -> None:
        if not isinstance(logger, str | logging.Logger | logging.LoggerAdapter):
            raise ConfigError(f"LogSink: logger must be a logger or its name, not {logger!r}")
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self._every = check_seconds("LogSink: every", every)
        self._begin(None)

    def __repr__(self) -> str:
        return f"LogSink({self._logger.name!r}, every={self._every:g})"

    def __call__(self, event: Event, /) -> None:
        match event:
            case Started():
                self._begin(event.desc)
            case Advanced():
                self._advance(event)
            case Finished():
                self._say(_ending(event))

    def _begin(self, desc: str | None) -> None:
        self._desc = desc or "map"
        self._tenths = 0
        self._last = 0.0

    def _advance(self, event: Advanced) -> None:
        tenths = _tenths(event)
        if tenths <= self._tenths and event.elapsed - self._last < self._every:
            return
        self._tenths, self._last = max(tenths, self._tenths), event.elapsed
        self._say(_standing(event))

    def _say(self, text: str) -> None:
        line = f"{self._desc}: {text}"
        if self._logger.hasHandlers() or self._logger.manager.disable >= logging.INFO:
            self._logger.info("%s", line)
        elif sys.stderr is not None:
            with above_bars():
                print(line, file=beneath(sys.stderr), flush=True)


def _tenths(event: Advanced) -> int:
    # Not ten: that all items are done is for the last line to say.
    return min(9, event.done * 10 // event.total) if event.total else 0


def _standing(event: Advanced) -> str:
    share = f"{event.done * 100 // event.total} %, " if event.total else ""
    return share + _line(event, troubles(event))


def _ending(event: Finished) -> str:
    ending = f"{'finished' if event.complete else 'stopped'}, {_line(event, {'failed': 0} | troubles(event))}"
    return f"{ending}; {event.advice}" if event.advice else ending


def _line(event: Advanced | Finished, counts: dict[str, int]) -> str:
    total = "" if event.total is None else f" of {event.total}"
    noun = "item" if (event.done if event.total is None else event.total) == 1 else "items"
    return ", ".join(
        [f"{event.done}{total} {noun}", *(f"{n} {what}" for what, n in counts.items()), f"{event.elapsed:.1f} s"]
    )
