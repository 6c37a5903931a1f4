"""Log records and warnings of workers, on their way to the caller's logging: the worker's side.

One handler takes the records: it writes them to files that all processes share, and tells the map the rest. What of the
caller's logging holds in a worker besides, levels above all, ``_propagate`` sees to.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import traceback
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._host import forks, live_messages, loaded
from anymap._serialize import exception_parts
from anymap._worker.context import task_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap._worker.context import TaskContext


RECORD, WARNING = "record", "warning"
"""The topics that workers tell of."""
LOGGED = "logged"
"""The topic of records that are logged in the caller's own process, for listeners in it."""

FIELDS = ("anymap_item", "anymap_backend", "anymap_worker", "anymap_host")
WRITTEN = "anymap_written"
"""The attribute of a record that names the files to which its worker has written it."""
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", WRITTEN, *FIELDS}
"""What any record has; the rest was given as ``extra``."""
_LONGEST = live_messages.LARGEST // 8
"""Characters of a message; what is beyond is cut off."""


class Setup(NamedTuple):
    """What logging and warnings in a worker have to be like."""

    levels: dict[str, int]
    """By logger, of all that have one."""
    disabled_loggers: tuple[str, ...]
    silenced: int
    """What ``logging.disable`` was called with."""
    filters: tuple[Any, ...]
    files: tuple[File, ...]
    only_files: bool
    """Only these files take what the caller logs."""
    caller: tuple[str, int]
    """The process whose workers are to be like this."""


class File(NamedTuple):
    """A file that workers write to by themselves."""

    logger: str
    """The handler is added to this logger, '' for the root."""
    settings: tuple[Any, ...]
    manner: bytes
    """The handler's level, formatter and filters, pickled."""


# --- the setup of a process -------------------------------------------------------------------------------------------

_token = uuid.uuid4().hex
_own_setup = b""
"""What was last found to be the setup of this process."""


def load(pickled: bytes) -> Setup:
    setup = Setup(*pickle.loads(pickled))
    return setup._replace(files=tuple(File(*file) for file in setup.files))


def disabled_loggers() -> tuple[str, ...]:
    loggers = list(logging.root.manager.loggerDict.items())
    return tuple(name for name, logger in loggers if getattr(logger, "disabled", False))


def is_own(pickled: bytes) -> bool:
    """Return whether the setup is that of this process: an engine that may have workers elsewhere has some here."""
    global _own_setup  # noqa: PLW0603 - a fact about the process
    if pickled == _own_setup:
        return True
    if load(pickled).caller != this_process():
        return False
    _own_setup = pickled
    annotate_in_memory()
    return True


def _forget_own_setup() -> None:
    global _own_setup  # noqa: PLW0603 - as above
    _own_setup = b""


forks.in_child(_forget_own_setup)


def this_process() -> tuple[str, int]:
    """Return what no other process has, on whatever host."""
    return _token, os.getpid()


def find_class(module: str, qualname: str) -> type[Warning] | None:
    """Return the class of that name, if its module has been imported."""
    outer, *inner = qualname.split(".")
    found: Any = loaded.variables(module).get(outer)
    for name in inner:
        found = getattr(found, name, None)
    return found if isinstance(found, type) and issubclass(found, Warning) else None


class Forwarder(logging.Handler):
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
        """Write to these files from now on; ``only``: no other handler wants what they take."""
        self._only_files = only
        if files != self.files:
            for _, handler in self._handlers:
                handler.close()
            self._handlers = list(_opened(files))
            self.files = files

    def emit(self, record: logging.LogRecord) -> None:
        from anymap._in_worker import tell  # noqa: PLC0415 - workers load no more than they need

        place = tell.find(RECORD)
        if place is None and (not self._handlers or _is_switched_off()):
            _handle_as_without(record)
        else:
            self.take(record, place)

    def take(self, record: logging.LogRecord, place: TaskContext | None) -> None:
        """Write a record to the files, and tell the map of ``place``."""
        try:
            self._take(record, place)
        except Exception:  # noqa: BLE001 - as any handler of the standard library does
            self.handleError(record)

    def _take(self, record: logging.LogRecord, place: TaskContext | None) -> None:
        from anymap._in_worker import tell  # noqa: PLC0415 - as above

        if not hasattr(record, FIELDS[0]):
            here = place or task_context.get()
            annotate(record, here.item() if here else None, _backend(here), os.getpid(), live_messages.host())
        written = [_write(file, handler, record) for file, handler in self._handlers if _concerns(file.logger, record)]
        if place is not None and not (written and self._only_files and tell.find(LOGGED) is None):
            tell.send(place, RECORD, _taken_apart(record, written))


forwarder = Forwarder()


def _is_switched_off() -> bool:
    """Return whether this thread runs an item of a map with ``logs="off"``."""
    place = task_context.get()
    return place is not None and (place.spec.environment is None or place.spec.environment.logging is None)


def _backend(place: Any) -> str:
    environment = place.spec.environment if place is not None else None
    return environment.backend if environment is not None else ""


def _handle_as_without(record: logging.LogRecord) -> None:
    """If no other handler has taken the record, do what logging does where there is none."""
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
        packed = exception_parts.dumps(value, by_name=True)
    except Exception:  # noqa: BLE001 - what does not pickle stays here
        return None
    return packed if len(packed) <= _LONGEST else None


def annotate(record: logging.LogRecord, item: int | None, backend: str, pid: int, host: str) -> None:
    """Say on a record whose it is."""
    vars(record).update(zip(FIELDS, (item, backend, pid, host), strict=True))


def warning_as_told(
    message: Any, category: type[Warning], filename: str, lineno: int, line: str | None
) -> tuple[str, str, str, str, int, str | None]:
    return str(message), category.__module__, category.__qualname__, filename, lineno, line


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
