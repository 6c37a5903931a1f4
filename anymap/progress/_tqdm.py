"""All that touches tqdm; imported only when a bar is wanted."""

from __future__ import annotations

import inspect
import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tqdm.std import TqdmDefaultWriteLock, tqdm

from anymap._errors import ConfigError
from anymap._hints import did_you_mean
from anymap.progress._above import Drawing, guard_handlers, register, release_handlers
from anymap.progress._debugger import is_at_its_prompt
from anymap.progress._where import beneath, in_notebook

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

__all__ = ["Bar", "bar_class", "check_keywords", "open_bar"]

# The half of tqdm's own lock that is a thread lock: with it our bars, the caller's and tqdm.write keep out of each
# other's way. The other half is a multiprocessing lock: making it fixes the start method for the whole program, and
# a worker that is killed while it holds it never gives it back.
_LOCK = TqdmDefaultWriteLock.th_lock

_NOT_PASSED_ON = {
    "iterable": "the map has its own",
    "total": "give it to the map instead",
    "initial": "a map begins at nought",
    "gui": "give the tqdm class instead",
}

_WIDE = 60
"""Columns."""

# tqdm's own classes that take keywords out of ``**kwargs``, and which.
_TAKEN_FROM_KWARGS = {
    "CellBar": set(),
    "tqdm_asyncio": set(),
    "tqdm_gui": set(),
    "tqdm_notebook": {"display"},
    "tqdm_rich": {"options", "progress"},
    "tqdm_tk": {"cancel_callback", "grab", "tk_parent"},
}


class Bar(tqdm):  # type: ignore[misc]
    """tqdm's bar, fit to be drawn from the threads of several maps at once.

    It makes no multiprocessing lock and starts no monitor thread.
    """

    monitor_interval = 0
    _lock = _LOCK
    total: int | None

    def refresh(self, nolock: bool = False, lock_args: tuple[Any, ...] | None = None) -> bool | None:
        if is_at_its_prompt():
            return False
        # tqdm's own keeps the lock for ever when drawing raises, and the next drawing hangs.
        if nolock:
            return super().refresh(nolock=True)  # type: ignore[no-any-return]
        if not _LOCK.acquire(*(lock_args or ())):
            return False
        try:
            return super().refresh(nolock=True)  # type: ignore[no-any-return]
        finally:
            _LOCK.release()

    def close(self) -> None:
        # The last step of the constructor is to set start_t; one that failed has nothing to close.
        if getattr(self, "disable", True) or not hasattr(self, "start_t"):
            return
        with _LOCK:
            self._close()

    def set_elapsed(self, elapsed: float) -> None:
        """Show the map's clock: a bar may be opened late, and tqdm's own clock jumps when the host's is set."""
        drift = self._time() - elapsed - self.start_t
        self.start_t += drift
        self.last_print_t += drift

    def set_total(self, total: int | None) -> None:
        """Take a total that was learnt on the way."""
        if total == self.total:
            return
        self.total = total
        if hasattr(self, "container"):
            _set_widget_total(self.container.children[1], total)
        elif hasattr(self, "_prog"):
            self._prog.update(self._task_id, total=total)

    def _close(self) -> None:
        place = abs(self.pos)
        stays = self.leave or (self.leave is None and not place)
        if place:
            # What stays is printed above all open bars; it must not be seen twice.
            self.clear(nolock=True)
        super().close()
        release_handlers()
        if stays and not self.gui:
            _close_ranks(place)


def _close_ranks(place: int) -> None:
    # A line was printed, so the cursor has moved down by one: bars below the closed one are now nearer to it. tqdm
    # leaves them where they were counted from, and a stale copy of each stays on the screen.
    others = [bar for bar in tqdm._instances if hasattr(bar, "pos")]
    if any(abs(bar.pos) == place for bar in others):
        return
    for bar in others:
        if isinstance(bar, Bar) and bar.pos > place:
            bar.pos -= 1


def _in_child() -> None:
    # The parent's bars are the parent's to draw.
    for bar in [bar for bar in tqdm._instances if isinstance(bar, Bar)]:
        bar.disable = True
        tqdm._instances.discard(bar)
    _LOCK.release()
    release_handlers()


if hasattr(os, "register_at_fork"):
    # A lock that another thread holds at a fork stays shut in the child for ever.
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_in_child)


def bar_class(kind: type[Any] | None) -> type[Bar]:
    """Return our flavour of the tqdm class ``kind``; of the one that suits where we run if that is ``None``."""
    if kind is None:
        kind = _notebook_class() or Bar
    if issubclass(kind, Bar):
        return kind
    return type(kind.__name__, (Bar, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def _notebook_class() -> type[Any] | None:
    # Qt consoles and Spyder have a notebook's kernel but show no widgets.
    if not in_notebook() or any(name == "QT_API" or name.startswith("SPYDER") for name in os.environ):
        return None
    from tqdm import notebook  # noqa: PLC0415 - ipywidgets come with it

    if notebook.IProgress is not None:
        widget: type[Any] = notebook.tqdm_notebook
        return widget
    from anymap.progress._cell import CellBar  # noqa: PLC0415 - derives from what is here

    return CellBar


def check_keywords(kind: type[Any] | None, options: Mapping[str, Any]) -> None:
    """Raise :class:`~anymap.ConfigError` for a keyword that bars of this class do not take."""
    for name in options:
        if name in _NOT_PASSED_ON:
            raise ConfigError(f"progress: the keyword {name!r} is not passed on to tqdm: {_NOT_PASSED_ON[name]}")
    known = _keywords(kind or _notebook_class() or tqdm)
    for name in options:
        if known and name not in known:
            raise ConfigError(f"progress: tqdm knows no keyword {name!r}.{did_you_mean(name, known)}")


def _keywords(kind: type[Any]) -> set[str]:
    """Return the keywords that ``kind`` takes; none at all if that cannot be told."""
    known: set[str] = set()
    base: Any
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        known |= {each.name for each in parameters} | _TAKEN_FROM_KWARGS.get(base.__name__, set())
        if base is tqdm or all(each.kind is not each.VAR_KEYWORD for each in parameters):
            break
        if base.__name__ not in _TAKEN_FROM_KWARGS:
            return set()
    return known - {"self", "args", "kwargs", "cell", *_NOT_PASSED_ON}


def open_bar(kind: type[Any] | None, options: Mapping[str, Any], *, desc: str | None, total: int | None) -> Bar:
    """Return a new bar; one that is disabled if the options or tqdm's environment variables say so."""
    chosen = bar_class(kind)
    told: dict[str, Any] = {"total": total} if desc is None else {"total": total, "desc": desc}
    # A window may be made narrower meanwhile. But a width that was given stays.
    if chosen is Bar and "ncols" not in options and "TQDM_NCOLS" not in os.environ:
        told["dynamic_ncols"] = True
    if (stderr := beneath(sys.stderr)) is not sys.stderr:
        told["file"] = stderr
    bar = chosen(**{**told, **options})
    if not bar.disable:
        _adjust(bar)
        if not bar.gui:
            guard_handlers()
    return bar


def has_room(options: Mapping[str, Any]) -> bool:
    """Tell whether a bar with these options is wide enough for more than what it counts."""
    width = options.get("ncols") or _screen(options.get("file") or sys.stderr)[0]
    return width is None or width >= _WIDE


def _adjust(bar: Bar) -> None:
    # tqdm would wait for more items at once if many came at once before; its monitor thread, which we do without, is
    # there to end that wait.
    bar.dynamic_miniters, bar.miniters = False, max(bar.miniters, 1)
    if not bar.gui:
        _fit(bar)


def _fit(bar: Bar) -> None:
    """Cope with terminals that claim to have no columns, as those of containers and CI do: tqdm shows nothing there."""
    if bar.dynamic_ncols:
        bar.dynamic_ncols = _screen
    if min(bar.ncols or 0, bar.nrows or 0) < 0:
        columns, bar.nrows = _screen(bar.fp)
        bar.ncols = columns if (bar.ncols or 0) < 0 else bar.ncols
        bar.refresh()


def _screen(file: Any) -> tuple[int | None, int | None]:
    """Return the columns and lines that tqdm may use, all but one of each; ``None`` where there is no terminal."""
    try:
        # A notebook's stderr has the file number of the terminal that the kernel was started from.
        columns, lines = os.get_terminal_size(file.fileno() if file.isatty() else -1)
    except (AttributeError, OSError, ValueError):
        return None, None
    return (columns or 80) - 1, (lines or 24) - 1


def _set_widget_total(widget: Any, total: int | None) -> None:
    # Without a total tqdm shows a short full bar in another colour.
    widget.max = total or 1
    if total:
        widget.bar_style = ""
        widget.layout.width = None


def _is_open() -> bool:
    return any(isinstance(bar, Bar) and not bar.disable for bar in Bar._instances)


def _taken_away() -> AbstractContextManager[object]:
    return Bar.external_write_mode(file=beneath(sys.stderr)) if Bar._instances else nullcontext()


register(Drawing(_is_open, _taken_away))
