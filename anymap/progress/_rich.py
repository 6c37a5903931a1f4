"""All that touches rich; imported only when it is asked for."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from anymap._errors import ConfigError
from anymap._host import forks
from anymap.progress._above import Drawing, guard_handlers, register, release_handlers
from anymap.progress._titles import title, what_runs
from anymap.progress._troubles import troubles
from anymap.progress.events import Advanced, Event, Finished, Started, TaskProgress

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["RichSink"]


class RichSink:
    """Draws the map, and the tasks that its items show, with :mod:`rich.progress`.

    Maps that run at the same time share one display, as a terminal has room for one. ``console`` is where it is drawn, by
    default on stderr. One sink serves one map at a time.

    Raises:
        ConfigError: ``console`` is no console of rich.
    """

    wants = frozenset({Started, Advanced, TaskProgress, Finished})
    shows_maps = True
    draws = True

    def __init__(self, console: Console | None = None) -> None:
        if not isinstance(console, Console | None):
            raise ConfigError(f"RichSink takes a rich.console.Console, not {console!r}")
        self._console = console
        self._display: _Display | None = None
        self._map: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def __repr__(self) -> str:
        return "RichSink()" if self._console is None else f"RichSink({self._console!r})"

    def __call__(self, event: Event, /) -> None:
        try:
            self._show(event)
        except Exception:
            self._leave()
            raise

    def _show(self, event: Event) -> None:
        match event:
            case Started():
                self._display = _join(self._console)
                self._map = self._display.add(_name(event), event.total)
            case Advanced():
                self._advance(event, event.total)
            case TaskProgress():
                self._show_task(event)
            case Finished():
                self._advance(event, event.done if event.complete else event.total)
                self._end_tasks()
                self._leave()

    def _advance(self, event: Advanced | Finished, total: int | None) -> None:
        if self._display is not None and self._map is not None:
            counts = " ".join(f"{what}={count}" for what, count in troubles(event).items())
            self._display.update(self._map, completed=event.done, total=total, counts=counts)

    def _show_task(self, event: TaskProgress) -> None:
        display = self._display
        if display is None:
            return
        if event.ended:
            if (known := self._tasks.pop(event.key, None)) is not None:
                display.remove(known)
            return
        if event.key not in self._tasks:
            if len(self._tasks) >= _MOST:
                return
            self._tasks[event.key] = display.add(title(event), event.total)
        display.update(self._tasks[event.key], completed=event.done, total=event.total)

    def _end_tasks(self) -> None:
        while self._tasks and self._display is not None:
            self._display.remove(self._tasks.popitem()[1])

    def _leave(self) -> None:
        display, self._display = self._display, None
        if display is not None:
            display.leave()


def _name(event: Started) -> str:
    if event.desc is not None or not event.backend:
        return event.desc or ""
    return what_runs(event.backend, event.workers)


_MOST = 8
"""Tasks of a map that are shown at once."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise the error, which ends the sink. rich would end the program."""
        raise  # noqa: PLE0704 - called where a BrokenPipeError is handled


class _Display:
    """What maps that run at the same time draw on, for as long as there is one."""

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self.maps = 0
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[counts]}", markup=False),
            console=console or _Console(stderr=True),
            auto_refresh=False,
        )
        self._progress.start()
        guard_handlers()

    def add(self, desc: str, total: int | None) -> TaskID:
        return self._progress.add_task(desc, total=total, counts="")

    def update(self, task: TaskID, **changes: Any) -> None:
        self._progress.update(task, refresh=True, **changes)

    def remove(self, task: TaskID) -> None:
        self._progress.remove_task(task)
        self._progress.refresh()

    def leave(self) -> None:
        with _lock:
            self.maps -= 1
            if self.maps > 0:
                return
            _displays.remove(self)
        self._progress.stop()
        release_handlers()


_lock = forks.Lock()
_displays: list[_Display] = []
"""Those that are open, one for each console."""


def _join(console: Console | None) -> _Display:
    with _lock:
        for display in _displays:
            if display.console is console:
                break
        else:
            display = _Display(console)
            _displays.append(display)
        display.maps += 1
        return display


# rich takes its display away by itself.
register(Drawing(lambda: bool(_displays), nullcontext))
# They are the parent's to draw.
forks.in_child(_displays.clear)
forks.in_child(release_handlers)
