"""What items have logged, warned of and printed elsewhere: brought out here, as if it had happened here."""

from __future__ import annotations

import contextlib
import logging
import pickle
import sys
import traceback
import warnings
from functools import partial
from typing import TYPE_CHECKING

from anymap._host.live_messages import host
from anymap._in_worker import tell
from anymap._propagate.log_records import FIELDS, RECORD, WARNING, WRITTEN, annotate, find_class
from anymap._propagate.output import OUTPUT, catch
from anymap.progress._above import above_bars, is_any_bar_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._host.live_messages import Told
    from anymap._propagate.environment_settings import EnvironmentSettings
    from anymap.progress import Sink


def settled(environment_settings: EnvironmentSettings, sinks: Iterable[Sink]) -> EnvironmentSettings:
    """Say what ``output="auto"`` is for a map with these sinks: the lines of its items must not be written into a bar."""
    if environment_settings.output != "auto":
        return environment_settings
    draws = any(getattr(sink, "draws", False) for sink in sinks) or is_any_bar_open() or tell.find(OUTPUT) is not None
    return environment_settings._replace(output="forward" if draws else "inherit")


def listeners(backend: str, environment_settings: EnvironmentSettings) -> dict[str, Callable[[Told], object]]:
    """Return the listeners to what items log and print, by topic; none where a map further out listens."""
    wanted: dict[str, Callable[[Told], object]] = {}
    if environment_settings.logs == "forward":
        wanted[RECORD] = partial(_handle_record, backend=backend)
        wanted[WARNING] = partial(_handle_warning, backend=backend)
    if environment_settings.output == "forward":
        wanted[OUTPUT] = partial(_print_output, backend=backend, prefix=environment_settings.output_prefix)
    return {topic: listener for topic, listener in wanted.items() if tell.find(topic) is None}


def _handle_record(told: Told, backend: str) -> None:
    handle(record_of(told, backend))


def record_of(told: Told, backend: str) -> logging.LogRecord:
    """Put together what a worker has logged."""
    parts = told.message
    extra = parts.pop("extra")
    if told.host != host():
        parts.pop(WRITTEN, None)  # a file of that name, but over there
    record = logging.makeLogRecord(parts)
    if record.exc_text:
        from anymap._serialize import tracebacks  # noqa: PLC0415 - as few records have one

        record.exc_text = tracebacks.with_source(record.exc_text)
    if isinstance(record.msg, bytes):
        record.msg = pickle.loads(record.msg)
    for name, packed in extra.items():
        with contextlib.suppress(Exception):  # its class may be known over there alone
            setattr(record, name, pickle.loads(packed))
    if parts.get(FIELDS[0]) is None:
        annotate(record, told.item, backend, told.pid, told.host)
    return record


def handle(record: logging.LogRecord) -> None:
    """Hand a record to the logger of its name."""
    logger = logging.getLogger(record.name)
    if not logger.isEnabledFor(record.levelno):
        return
    try:
        logger.handle(record)
    except Exception:  # noqa: BLE001 - a filter or a handler is the user's
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # no process reads it
                traceback.print_exc()


def _handle_warning(told: Told, backend: str) -> None:
    """Show a worker's warning as this process shows its own."""
    text, module, qualname, filename, lineno, line = told.message
    kind = find_class(module, qualname) or type(qualname, (Warning,), {"__module__": module})
    if warnings.showwarning is not getattr(logging, "_showwarning", None):
        with above_bars(), contextlib.suppress(OSError, ValueError):  # no process reads it
            warnings.showwarning(Warning(text), kind, filename, lineno, None, line)
        return
    shown = warnings.formatwarning(Warning(text), kind, filename, lineno, line)
    record = logging.LogRecord("py.warnings", logging.WARNING, filename, lineno, "%s", (shown,), None)
    annotate(record, told.item, backend, told.pid, told.host)
    handle(record)


def _print_output(told: Told, backend: str, prefix: str) -> None:
    stream, text, item = told.message
    if prefix:
        filled = prefix.format(item=item, backend=backend, worker=told.pid, host=told.host)
        text = "".join(f"{filled} {line}" for line in text.splitlines(keepends=True))
    _print(stream, text)


def _print(stream: str, text: str) -> None:
    token = catch.set(None)  # where an item of this process prints it
    try:
        file = getattr(sys, stream)
        if file is None:
            return
        with above_bars():
            file.write(text)
            file.flush()
    except (OSError, ValueError):  # no process reads it
        return
    finally:
        catch.reset(token)
