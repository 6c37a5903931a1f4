from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import time
from typing import TYPE_CHECKING, Any, get_args

from anymap._errors import ConfigError
from anymap._host import guarded
from anymap.progress.events import Event, Finished, LogRecord, Started

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JsonLinesSink"]

_numbers = itertools.count()


class JsonLinesSink:
    """Appends each event to a file as one JSON object on a line of its own.

    A line is written whole and at once, so the file can be read after a crash, and several maps and programs may write
    to it. Every object has ``event``, the event's name as ``item_done``; ``map``, which tells the maps of a file apart;
    ``time``, in seconds since 1970; and the fields of the event. An error is its ``type`` and ``message``; a log record
    its ``logger``, ``level`` and ``message``.

    Raises:
        ConfigError: ``path`` is no path, there is no such folder, or the file may not be written to.
    """

    wants = frozenset(get_args(Event))

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file: int | None = None
        if not isinstance(path, str | os.PathLike):
            raise ConfigError(f"JsonLinesSink takes the path of a file, not {path!r}")
        self._path = os.path.abspath(os.path.expanduser(path))
        self._map = ""
        folder = os.path.dirname(self._path)
        there = self._path if os.path.exists(self._path) else folder
        if os.path.isdir(self._path) or not os.path.isdir(folder) or not os.access(there, os.W_OK):
            raise ConfigError(f"progress: {self._path!r} cannot be written to")

    def __repr__(self) -> str:
        return f"JsonLinesSink({self._path!r})"

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, Started):
            self._close()
            self._map = f"{os.getpid()}-{next(_numbers)}"
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if self._file is not None:
            os.write(self._file, self._line(event))
        if isinstance(event, Finished):
            self._close()

    def __del__(self) -> None:
        self._close()

    def _line(self, event: Event) -> bytes:
        told = {"event": _name(type(event)), "map": self._map, "time": round(time.time(), 6)} | dict(_fields(event))
        return json.dumps(told, default=_plain).encode() + b"\n"

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _name(kind: type[Any]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def _fields(event: Event) -> Iterator[tuple[str, Any]]:
    if isinstance(event, LogRecord):
        record = event.record
        yield from {"logger": record.name, "level": record.levelname, "message": record.getMessage()}.items()
        yield "elapsed", event.elapsed
        return
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        yield field.name, round(value, 6) if isinstance(value, float) else value


def _plain(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {"type": type(value).__qualname__, "message": guarded.text(value)}
    return dict(value) if hasattr(value, "keys") else str(value)
