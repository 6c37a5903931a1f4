"""Log records and warnings of workers, on their way to the caller's logging: the worker's side.

One handler on the root logger takes all records: it writes them to files that all processes share, and tells the map
the rest. Levels and filters are those of the caller, where the worker is his alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import sys
import traceback
import uuid
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._host import forks, live_messages
from anymap._worker.task import task_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


RECORD, WARNING = "record", "warning"
"""The topics that workers tell of."""
LOGGED = "logged"
"""The topic of records that are logged in the caller's own process, for who wants to know of them."""

FIELDS = ("anymap_item", "anymap_backend", "anymap_worker", "anymap_host")
WRITTEN = "anymap_written"
"""The attribute of a record that names the files to which its worker has written it."""
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", WRITTEN, *FIELDS}
"""What any record has; the rest was given as ``extra``."""
_LONGEST = live_messages.LARGEST // 8
"""Characters of a message; what is beyond is cut off."""


class Setup(NamedTuple):
    """What logging and warnings in a worker have to be like."""

    levels: dict[str, int] | None
    """By logger, of all that have one; ``None``: the worker is not the caller's alone."""
    disabled: int
    filters: tuple[Any, ...]
    files: tuple[File, ...]
    only_files: bool
    """Nobody but these files takes what the caller logs."""
    caller: tuple[str, int]
    """The process whose workers are to be like this."""


class File(NamedTuple):
    """A file that workers write to by themselves."""

    logger: str
    """The handler is added to this logger, '' for the root."""
    settings: tuple[Any, ...]
    manner: bytes
    """The handler's level, formatter and filters, pickled."""


# --- how the process logs ---------------------------------------------------------------------------------------------

_token = uuid.uuid4().hex
_applied = _own_setup = b""
_at_home = os.getpid()
"""The process whose handlers are its own: a fork of it has got them from its parent."""
_levels_before: dict[str, int] = {}
_filters_to_come: tuple[Any, ...] = ()
"""The filters, while some of their classes are of modules that are not imported yet."""
_lock = forks.Lock()


def apply(pickled: bytes) -> None:
    """Make this process's logging like that. Costs next to nothing where it is already."""
    global _applied, _own_setup  # noqa: PLW0603 - facts about the process
    if pickled == _own_setup and not _is_new_fork():
        return
    if pickled != _applied or _is_new_fork():
        setup = Setup(*pickle.loads(pickled))
        if setup.caller == this_process():
            # An engine that may have workers elsewhere has some here: its caller's logging is as it should be.
            _own_setup = pickled
            annotate_in_memory()
            return
        with _lock:
            _set_up(setup)
            _applied = pickled
    elif _filters_to_come and any(category[0] in sys.modules for category in _to_come()):
        _set_filters(_filters_to_come)


def this_process() -> tuple[str, int]:
    """Return what no other process has, on whatever host."""
    return _token, os.getpid()


def _is_new_fork() -> bool:
    return _at_home != os.getpid()


def _set_up(setup: Setup) -> None:
    global _at_home  # noqa: PLW0603 - a fact about the process
    if _is_new_fork():
        _at_home = os.getpid()
        for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
            if isinstance(logger, logging.Logger):
                logger.handlers = []
    if forwarder not in logging.root.handlers:
        logging.root.addHandler(forwarder)
        _show_warnings_there()
    forwarder.use(tuple(File(*file) for file in setup.files), only=setup.only_files)
    if setup.levels is not None:
        logging.disable(setup.disabled)
        _set_levels(setup.levels)
        _set_filters(setup.filters)


def _set_levels(levels: Mapping[str, int]) -> None:
    for name in _levels_before.keys() - levels.keys():
        logging.getLogger(name or None).setLevel(_levels_before.pop(name))
    for name, level in levels.items():
        logger = logging.getLogger(name or None)
        _levels_before.setdefault(name, logger.level)
        if logger.level != level:
            logger.setLevel(level)


def _set_filters(filters: tuple[Any, ...]) -> None:
    global _filters_to_come  # noqa: PLW0603 - a fact about the process
    _filters_to_come = ()
    warnings.resetwarnings()
    for action, message, category, module, lineno in filters:
        kind = find_class(*category)
        if kind is None:
            _filters_to_come = filters
        else:
            warnings.filterwarnings(action, message, kind, module, lineno, append=True)


def _to_come() -> list[tuple[str, str]]:
    return [entry[2] for entry in _filters_to_come if find_class(*entry[2]) is None]


def find_class(module: str, qualname: str) -> type[Warning] | None:
    """Return the class of that name, if its module has been imported."""
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) and issubclass(found, Warning) else None


class _Forwarder(logging.Handler):
    """Takes the records of a worker: some files are written here, the rest is the caller's to handle."""

    def __init__(self) -> None:
        super().__init__()
        self.files: tuple[File, ...] = ()
        self._handlers: list[tuple[File, logging.Handler]] = []
        self._only_files = False

    def handle(self, record: logging.LogRecord) -> bool:
        # Without the base class's lock: the pipe and the files have their own, and one item may wait to be heard.
        wanted = self.filter(record)
        if wanted:
            self.emit(record if wanted is True else wanted)
        return bool(wanted)

    def use(self, files: tuple[File, ...], *, only: bool) -> None:
        """Write to these files from now on; ``only``: what they take, nobody else wants."""
        self._only_files = only
        if files != self.files:
            for _, handler in self._handlers:
                handler.close()
            self._handlers = list(_opened(files))
            self.files = files

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except Exception:  # noqa: BLE001 - as any handler of the standard library does
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        from anymap._in_worker import tell  # noqa: PLC0415 - workers load no more than they need

        place = tell.find(RECORD)
        if place is None and not self._handlers:
            _handle_as_without(record)
            return
        if not hasattr(record, FIELDS[0]):
            here = place or task_context.get()
            annotate(record, here.item() if here else None, _backend(here), os.getpid(), live_messages.host())
        written = [_write(file, handler, record) for file, handler in self._handlers if _concerns(file.logger, record)]
        if place is not None and not (written and self._only_files and tell.find(LOGGED) is None):
            tell.send(place, RECORD, _taken_apart(record, written))


forwarder = _Forwarder()


def _backend(place: Any) -> str:
    environment = place.spec.environment if place is not None else None
    return environment.backend if environment is not None else ""


def _handle_as_without(record: logging.LogRecord) -> None:
    """Nobody but this handler may have taken the record: then do what logging does where there is none."""
    last = logging.lastResort
    if last is not None and record.levelno >= last.level and not _has_others(logging.getLogger(record.name)):
        last.handle(record)


def _has_others(logger: logging.Logger | None) -> bool:
    while logger is not None:
        if any(handler is not forwarder for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _opened(files: tuple[File, ...]) -> Iterator[tuple[File, logging.Handler]]:
    for file in files:
        with contextlib.suppress(Exception):  # the caller writes it then
            yield file, _open(file)


def _open(file: File) -> logging.Handler:
    from anymap._propagate.rotating import FileSettings, RotatingFile  # noqa: PLC0415 - the library is an extra

    level, formatter, filters = pickle.loads(file.manner)
    handler = RotatingFile(FileSettings(*file.settings))
    handler.setLevel(level)
    handler.setFormatter(formatter)
    handler.filters = filters
    return handler


def _concerns(logger: str, record: logging.LogRecord) -> bool:
    return not logger or record.name == logger or record.name.startswith(f"{logger}.")


def _write(file: File, handler: logging.Handler, record: logging.LogRecord) -> str:
    if record.levelno >= handler.level:
        handler.handle(record)
    path: str = file.settings[0]
    return path


def _taken_apart(record: logging.LogRecord, written: list[str]) -> dict[str, Any]:
    """Return a record as plain data, its message made."""
    parts = {name: value for name, value in vars(record).items() if name in _OWN}
    for made_by_formatters in ("message", "asctime"):
        parts.pop(made_by_formatters, None)
    parts["msg"], parts["args"] = _message(record), None
    if record.exc_info and not record.exc_text:
        parts["exc_text"] = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
    parts["exc_info"] = None
    if written:
        parts[WRITTEN] = written
    parts["extra"] = {
        name: packed
        for name, value in vars(record).items()
        if name not in _OWN and (packed := _packed(value)) is not None
    }
    return parts


def _message(record: logging.LogRecord) -> Any:
    if not isinstance(record.msg, str) and not record.args and isinstance(record.msg, dict | list | tuple):
        packed = _packed(record.msg)  # structlog's, for its formatter in the caller
        if packed is not None:
            return packed
    message = record.getMessage()
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]} [...]"


def _packed(value: Any) -> bytes | None:
    try:
        packed = pickle.dumps(value, 5)
    except Exception:  # noqa: BLE001 - what does not pickle stays here
        return None
    return packed if len(packed) <= _LONGEST else None


def annotate(record: logging.LogRecord, item: int | None, backend: str, pid: int, host: str) -> None:
    """Say on a record whose it is."""
    vars(record).update(zip(FIELDS, (item, backend, pid, host), strict=True))


# --- warnings ---------------------------------------------------------------------------------------------------------


def _show_warnings_there() -> None:
    if getattr(warnings.showwarning, "__name__", "") != _show_there.__name__:
        _showing_here.append(warnings.showwarning)
        warnings.showwarning = _show_there


_showing_here: list[Callable[..., None]] = []


def _show_there(
    message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
) -> None:
    """Stand in a worker for ``warnings.showwarning``."""
    from anymap._in_worker import tell  # noqa: PLC0415 - as in the handler

    told = (str(message), category.__module__, category.__qualname__, filename, lineno, line)
    if file is not None or not tell.tell(WARNING, told):
        _showing_here[-1](message, category, filename, lineno, file, line)


# --- where memory is shared -------------------------------------------------------------------------------------------

_annotating = False


def annotate_in_memory() -> None:
    """From now on, have records that items log in this process say whose they are."""
    global _annotating  # noqa: PLW0603 - a fact about the process
    if _annotating:
        return
    _annotating = True
    from anymap._in_worker import tell  # noqa: PLC0415 - as in the handler

    make = logging.getLogRecordFactory()

    def make_annotated(*args: Any, **options: Any) -> logging.LogRecord:
        record = make(*args, **options)
        place = task_context.get()
        if place is None:
            return record
        if place.spec.shares_memory:
            annotate(record, place.item(), _backend(place), os.getpid(), live_messages.host())
            tell.tell(LOGGED, record)
        elif place.spec.environment is not None and place.spec.environment.logging == _own_setup:
            annotate(record, place.item(), _backend(place), os.getpid(), live_messages.host())
        return record

    logging.setLogRecordFactory(make_annotated)
