from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anymap._errors import ConfigError
from anymap.progress._above import release_handlers
from anymap.progress._seconds import check_seconds
from anymap.progress._titles import what_runs
from anymap.progress._troubles import troubles
from anymap.progress.events import Advanced, Event, Finished, Started, TaskProgress

if TYPE_CHECKING:
    from anymap.progress._rows import Rows
    from anymap.progress._tqdm import Bar

__all__ = ["BarSink"]

_WORTH_A_LINE = 2.0
"""So many times quicker another choice must have been before a line below the bar says so."""


class BarSink:
    """Draws a tqdm bar that counts items, and below it one for each task that an item shows, eight at a time.

    ``kind`` is the tqdm class to draw with; by default a widget in a notebook that has ipywidgets, else a line of
    text on stderr. A map without a name is called by what it runs on, where there is room. ``delay`` keeps the bar away until the map has lasted that many seconds: a shorter map shows none,
    and tqdm is not even imported. All other keywords are tqdm's, but for the iterable, the total and the initial count.
    One sink serves one map at a time. Bars of tasks are drawn on terminals and in notebooks, not where ``kind`` is given.

    Raises:
        ConfigError: ``kind`` is no class, ``delay`` is no number of seconds, or tqdm does not know one of the keywords.
    """

    wants = frozenset({Started, Advanced, TaskProgress, Finished})
    shows_maps = True
    """It can show all maps of a block as one."""
    draws = True
    """What is written where this draws spoils both."""

    def __init__(self, kind: type[Any] | None = None, /, *, delay: float = 0.0, **options: Any) -> None:
        if not isinstance(kind, type | None):
            raise ConfigError(f"BarSink takes the class of its bar, a subclass of tqdm.tqdm, not {kind!r}")
        if kind is not None or options:
            from anymap.progress._tqdm import check_keywords  # noqa: PLC0415 - tqdm comes with it

            check_keywords(kind, options)
        self._kind = kind
        self._delay = check_seconds("BarSink: delay", delay)
        self._options = options
        self._waiting: Started | None = None
        self._bar: Bar | None = None
        self._rows: Rows | None = None
        self._drawn = 0.0
        self._own_postfix: list[str] = []

    def __repr__(self) -> str:
        given = [] if self._kind is None else [self._kind.__qualname__]
        options = self._options if not self._delay else {"delay": self._delay, **self._options}
        return f"BarSink({', '.join([*given, *(f'{name}={value!r}' for name, value in options.items())])})"

    def __call__(self, event: Event, /) -> None:
        try:
            self._show(event)
        except Exception:
            self._drop()
            raise

    def _show(self, event: Event) -> None:
        if isinstance(event, Started):
            self._waiting = event
        if self._waiting is not None and _elapsed(event) >= self._delay:
            self._open(self._waiting)
        if isinstance(event, Advanced) and self._bar is not None:
            self._advance(self._bar, event)
        elif isinstance(event, TaskProgress) and self._rows is not None:
            self._rows.show(event)
        elif isinstance(event, Finished):
            self._finish(event)

    def _open(self, started: Started) -> None:
        # Both now: in a fork that comes between them the second one could not be imported any more.
        from anymap.progress._rows import Rows  # noqa: PLC0415 - tqdm comes with it
        from anymap.progress._tqdm import has_room, open_bar  # noqa: PLC0415

        self._waiting = None
        desc = started.desc
        if desc is None and started.backend and has_room(self._options):
            desc = what_runs(started.backend, started.workers)
        bar = open_bar(self._kind, self._options, desc=desc, total=started.total)
        if bar.disable:
            return
        self._bar = bar
        self._rows = Rows(bar, self._options) if self._kind is None and Rows.fit_below(bar) else None
        self._drawn = 0.0
        self._own_postfix = [bar.postfix] if isinstance(bar.postfix, str) else []

    def _advance(self, bar: Bar, event: Advanced) -> None:
        self._set(bar, event, event.total)
        # tqdm draws only when the count moves; the seconds must move without it.
        if bar.update(event.done - bar.n) or (self._is_stale(bar, event.elapsed) and bar.refresh()):
            self._drawn = event.elapsed

    def _is_stale(self, bar: Bar, elapsed: float) -> bool:
        return int(elapsed) != int(self._drawn) and elapsed - self._drawn >= bar.mininterval

    def _finish(self, event: Finished) -> None:
        bar, rows = self._bar, self._rows
        self._bar = self._rows = self._waiting = None
        if bar is None:
            return
        if rows is not None:
            rows.close()
        self._set(bar, event, event.done if event.complete else event.total)
        bar.n = event.done
        bar.close()
        if event.gain > _WORTH_A_LINE:
            bar.write(f"anymap: {event.advice}", file=bar.fp)

    def _set(self, bar: Bar, event: Advanced | Finished, total: int | None) -> None:
        bar.set_elapsed(event.elapsed)
        bar.set_total(total)
        bar.postfix = ", ".join([*self._own_postfix, *(f"{what}={n}" for what, n in self._counts(event).items())])

    def _counts(self, event: Advanced | Finished) -> dict[str, int]:
        """Return what is worth a word on the bar."""
        unseen = self._rows.unseen if self._rows is not None else 0
        return troubles(event) | ({"more tasks": unseen} if unseen else {})

    def _drop(self) -> None:
        bar, rows = self._bar, self._rows
        self._bar = self._rows = self._waiting = None
        if rows is not None:
            rows.drop()
        if bar is not None:
            # Else it draws itself once more when it is collected.
            bar.disable = True
            release_handlers()


def _elapsed(event: Event) -> float:
    return 0.0 if isinstance(event, Started) else event.elapsed
