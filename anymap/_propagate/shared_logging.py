"""Apply the caller's logging to the items of a map in a process that others use too.

Levels and handlers of the process stay as they are. While items run, a few functions of the standard library look up for
which item the calling thread works. For one of an item, a record is made if the process's own levels or the caller's let
it pass; the process's handlers get the former, the caller the latter. For all other threads these functions do what they
always do. When the last item has ended they are put back.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._host import forks
from anymap._in_worker import tell
from anymap._propagate import log_records
from anymap._worker.context import task_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anymap._propagate.log_records import Setup
    from anymap._worker.context import TaskContext

_KEPT = 4
"""Of so many maps it is remembered what their items have set. Several may take turns."""
_STARTED_FOR = "anymap_started_for"
"""The attribute of a thread that an item has started."""


class CallerLogging:
    """The caller's logging, as the items of one map find it in this process."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.users = 0
        """How many chunks run with it."""
        self.is_inherited = setup.caller[0] == log_records.this_process()[0]
        """The process is a fork of the caller's: its handlers are the caller's, which handles the records itself."""
        self._forwarder = log_records.Forwarder()
        self._disabled = frozenset(setup.disabled_loggers)
        self._disabled_before = frozenset(log_records.disabled_loggers())
        self._silenced_before = logging.root.manager.disable
        self._set_by_items: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._levels: dict[str, int] = setup.levels
        self._effective: dict[str, int] = {}

    def wants(self, logger: logging.Logger, level: int) -> bool:
        """Return whether the caller's levels let a record pass."""
        return (
            level > self._silenced()
            and level >= self.effective_level(logger)
            and not self._is_disabled(logger)
            and _reaches_root(logger)
        )

    def _is_disabled(self, logger: logging.Logger) -> bool:
        return logger.name in self._disabled or (logger.disabled and not self.was_disabled(logger))

    def was_disabled(self, logger: logging.Logger) -> bool:
        """Return whether the process had a logger disabled before: an item has not done it."""
        return logger.name in self._disabled_before

    def _silenced(self) -> int:
        """Return the argument of ``logging.disable``: the caller's, unless an item has called it meanwhile."""
        here = logging.root.manager.disable
        return self.setup.silenced if here == self._silenced_before else max(here, self.setup.silenced)

    def effective_level(self, logger: logging.Logger) -> int:
        name, known = _name(logger), self._effective  # before the levels: another thread may be setting one
        level = known.get(name)
        if level is None:
            levels = self._levels
            level = known[name] = next((found for parent in _with_parents(name) if (found := levels.get(parent))), 0)
        return level

    def note_level(self, logger: logging.Logger, before: int) -> None:
        """Have a level hold that an item has set, until it is set back."""
        name = _name(logger)
        if logger.level == self._before.setdefault(name, before):
            self._set_by_items.pop(name, None)
        else:
            self._set_by_items[name] = logger.level
        self._levels = self.setup.levels | self._set_by_items
        self._effective = {}

    def take(self, record: logging.LogRecord, place: TaskContext) -> None:
        """Write a record to the caller's files that are here, and tell the map."""
        if self._forwarder.files != self.setup.files:
            with _lock:
                self._forwarder.use(self.setup.files, only=self.setup.only_files)
        self._forwarder.take(record, tell.find(log_records.RECORD, place))

    def close_files(self) -> None:
        self._forwarder.use((), only=False)


def _name(logger: logging.Logger) -> str:
    return "" if logger is logging.root else logger.name


def _with_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield name


def _reaches_root(logger: logging.Logger | None) -> bool:
    """Return whether handlers of the root logger get the records of this one."""
    while logger is not None and logger.propagate:
        if logger.parent is None:
            return logger is logging.root
        logger = logger.parent
    return False


# --- which thread works for which item --------------------------------------------------------------------------------


class _Running:
    """A chunk that this process runs. What an item has started keeps this, not the chunk."""

    __slots__ = ("engine", "logging", "map_id", "place")

    def __init__(self, logging: CallerLogging, place: TaskContext) -> None:
        self.logging = logging
        self.map_id = place.spec.map_id
        self.engine = _target(threading.current_thread())
        """What the engine's threads run."""
        self.place: TaskContext | None = place
        """``None`` when the chunk has ended."""


def _target(thread: threading.Thread) -> Any:
    return getattr(thread, "_target", None)


_lock = forks.Lock()
_running: dict[TaskContext, _Running] = {}
_known: OrderedDict[str, CallerLogging] = OrderedDict()
"""By map."""


def applied(pickled: bytes, place: TaskContext) -> contextlib.AbstractContextManager[None]:
    """Have the pickled :class:`Setup` hold for what runs in ``place``."""
    if place.spec.map_id not in _known and log_records.is_own(pickled):
        return contextlib.nullcontext()
    return _applied(pickled, place)


@contextlib.contextmanager
def _applied(pickled: bytes, place: TaskContext) -> Iterator[None]:
    with _lock:
        known = _look_up(place.spec.map_id, pickled)
        known.users += 1
        _running[place] = running = _Running(known, place)
        _install()
    try:
        yield
    finally:
        with _lock:
            del _running[place]
            running.place = None
            known.users -= 1
            if not known.users:
                known.close_files()
            if not _running:
                _put_back()


def _look_up(map_id: str, pickled: bytes) -> CallerLogging:
    known = _known.get(map_id)
    if known is None:
        known = _known[map_id] = CallerLogging(log_records.load(pickled))
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    _known.move_to_end(map_id)
    return known


def of_this_thread() -> CallerLogging | None:
    """Return the logging of the caller that this thread runs an item for."""
    running = _find()
    return running.logging if running is not None else None


def _find() -> _Running | None:
    """Return the chunk that this thread works for, directly, by a map inside of it, or as a thread that it has started."""
    if not _running:
        return None
    place = task_context.get()
    while place is not None:
        if (running := _running.get(place)) is not None:
            return running
        place = place.spec.outer
    started_for = getattr(threading.current_thread(), _STARTED_FOR, None)
    if started_for is None or started_for.place is not None:
        return started_for
    # A thread that outlives its item may work for the map's next.
    others = [running for running in list(_running.values()) if running.map_id == started_for.map_id]
    return others[0] if len(others) == 1 else None


# --- functions of the standard library while items run ----------------------------------------------------------------


def _is_enabled_for(original: Callable[..., bool]) -> Callable[..., bool]:
    def is_enabled_for(self: logging.Logger, level: int) -> bool:
        running = _find()
        if running is None:
            return original(self, level)
        return running.logging.wants(self, level) or _passes_here(self, level, running.logging)

    return is_enabled_for


def _passes_here(logger: logging.Logger, level: int, caller: CallerLogging) -> bool:
    """Return whether the process's own levels let a record pass. Logging's own function for it keeps what it has found."""
    is_enabled = not logger.disabled and level > logger.manager.disable
    return is_enabled and not caller.is_inherited and level >= _own_effective_level(logger)


def _own_effective_level(logger: logging.Logger | None) -> int:
    while logger is not None:
        if logger.level:
            return logger.level
        logger = logger.parent
    return logging.NOTSET


def _get_effective_level(original: Callable[..., int]) -> Callable[..., int]:
    def get_effective_level(self: logging.Logger) -> int:
        running = _find()
        if running is None:
            return original(self)
        levels = running.logging.effective_level(self), _own_effective_level(self)
        return levels[0] if running.logging.is_inherited else min(levels)

    return get_effective_level


def _set_level(original: Callable[..., None]) -> Callable[..., None]:
    def set_level(self: logging.Logger, level: int | str) -> None:
        running, before = _find(), self.level
        original(self, level)
        if running is not None:
            running.logging.note_level(self, before)

    return set_level


def _handle(original: Callable[..., None]) -> Callable[..., None]:
    def handle(self: logging.Logger, record: logging.LogRecord) -> None:
        running = _find()
        if running is None or not running.logging.was_disabled(self):
            original(self, record)
        elif kept := self.filter(record):
            self.callHandlers(record if kept is True else kept)

    return handle


def _call_handlers(original: Callable[..., None]) -> Callable[..., None]:
    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        running = _find()
        place = running.place if running is not None else None
        if running is None or place is None:
            original(self, record)
            return
        is_wanted = running.logging.wants(self, record.levelno)
        # Where there are no handlers, the last resort would print what the caller handles.
        if _passes_here(self, record.levelno, running.logging) and (not is_wanted or self.hasHandlers()):
            original(self, record)
        if is_wanted:  # last, so that no file is written to twice
            running.logging.take(record, place)

    return call_handlers


def _start(original: Callable[..., None]) -> Callable[..., None]:
    def start(self: threading.Thread) -> None:
        running = _find()
        if running is not None and not _is_the_engines(self, running):
            setattr(self, _STARTED_FOR, running)
        original(self)

    return start


def _is_the_engines(thread: threading.Thread, running: _Running) -> bool:
    """Return whether a thread is one more of the engine's, as when an item leaves its place, or one of this package's."""
    is_alike = running.engine is not None and _target(thread) == running.engine
    return is_alike or thread.name.startswith("anymap-")


def _show_warning(original: Callable[..., None]) -> Callable[..., None]:
    def show_warning(
        message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        running = _find()
        place = tell.find(log_records.WARNING, running.place) if running is not None and running.place else None
        told = log_records.warning_as_told(message, category, filename, lineno, line)
        if file is not None or place is None or not tell.tell(log_records.WARNING, told, place=place):
            original(message, category, filename, lineno, file, line)

    return show_warning


_WRAPPERS: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
    (logging.Logger, "isEnabledFor", _is_enabled_for),
    (logging.Logger, "getEffectiveLevel", _get_effective_level),
    (logging.Logger, "setLevel", _set_level),
    (logging.Logger, "handle", _handle),
    (logging.Logger, "callHandlers", _call_handlers),
    (threading.Thread, "start", _start),
    (warnings, "showwarning", _show_warning),
)


class _Replaced(NamedTuple):
    original: Any
    wrapper: Any


_replaced: dict[tuple[Any, str], _Replaced] = {}


def _install() -> None:
    for owner, name, wrap in _WRAPPERS:
        if (owner, name) not in _replaced:
            original = getattr(owner, name)
            _replaced[owner, name] = _Replaced(original, wrap(original))
            setattr(owner, name, _replaced[owner, name].wrapper)


def _put_back() -> None:
    for (owner, name), (original, wrapper) in list(_replaced.items()):
        # What others have put a function of their own around meanwhile stays: without items it changes nothing.
        if getattr(owner, name) is wrapper:
            setattr(owner, name, original)
            del _replaced[owner, name]
