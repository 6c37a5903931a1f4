"""Tracebacks as values: taken apart in the worker, put together where the caller is.

What arrives are real tracebacks, so that a terminal, IPython, pytest and debuggers show them as any other: with the
lines of the source that the caller knows, of a notebook's cell too, which no worker has.
"""

from __future__ import annotations

import functools
import linecache
import re
import threading
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

_LINE, _LINE_AND_COLUMNS = 13, 14
"""How an entry of ``co_linetable`` begins (CPython's Objects/locations.md)."""
_NO_SOURCE = re.compile(r'^( *)File "(.+)", line (\d+), in .*\n(?!\1  )', re.MULTILINE)
"""An entry of a formatted traceback without its line of source."""


class Place(NamedTuple):
    """Where in the code a traceback's entry is."""

    file: str
    name: str
    qualname: str
    module: str | None
    first_line: int
    line: int
    end_line: int | None
    column: int | None
    end_column: int | None


class Entry(NamedTuple):
    """One entry of a traceback, with the line of source that there is where it was made."""

    place: Place
    source: str


def take_apart(traceback: TracebackType | None) -> tuple[Entry, ...]:
    """Return a traceback as plain data."""
    return tuple(_entry(each) for each in _entries(traceback))


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _entry(traceback: TracebackType) -> Entry:
    frame, line = traceback.tb_frame, traceback.tb_lineno
    code = frame.f_code
    _, *columns = next(islice(code.co_positions(), traceback.tb_lasti // 2, None), (None, None, None, None))
    module = frame.f_globals.get("__name__")
    place = Place(code.co_filename, code.co_name, code.co_qualname, module, code.co_firstlineno, line, *columns)
    linecache.checkcache(place.file)
    return Entry(place, linecache.getline(place.file, line, frame.f_globals))


def put_together(entries: tuple[Entry, ...]) -> TracebackType | None:
    """Return a traceback as it was where it was taken apart, with frames that have no variables."""
    made = None
    for entry in reversed(entries):
        _show(entry)
        found = _stand_in(entry.place)
        made = TracebackType(made, found.tb_frame, found.tb_lasti, found.tb_lineno)
    return made


def _show(entry: Entry) -> None:
    """Have ``linecache`` know the line of a file that is not here."""
    file, line = entry.place.file, entry.place.line
    if not entry.source or linecache.getline(file, line):
        return
    known = linecache.cache.get(file)
    lines = list(known[2]) if known is not None and len(known) > 1 else []
    lines += ["\n"] * (line - len(lines))
    lines[line - 1] = entry.source
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)


@functools.lru_cache(maxsize=1000)
def _stand_in(place: Place) -> TracebackType:
    """Return a traceback of one entry, that of code which has failed in this place."""
    made: list[TracebackType] = []

    def fail() -> None:
        try:
            exec(_code(place), {"__name__": place.module, "__file__": place.file})  # noqa: S102 - our own code
        except ZeroDivisionError as exc:
            made.append(exc.__traceback__.tb_next)  # type: ignore[arg-type, union-attr]

    # A frame holds the one that called it. In a thread of its own it does not hold on to the caller's variables.
    try:
        thread = threading.Thread(target=fail, name="anymap-traceback")
        thread.start()
    except RuntimeError:  # no thread can be started
        fail()
    else:
        thread.join()
    return made[0]


def _code(place: Place) -> CodeType:
    code = _fail.__code__
    return code.replace(
        co_filename=place.file,
        co_name=place.name,
        co_qualname=place.qualname,
        co_firstlineno=place.first_line,
        co_linetable=_line_table(place, len(code.co_code) // 2),
    )


def _fail() -> None:
    0 / 0  # noqa: B018 - what it is called for


def _line_table(place: Place, units: int) -> bytes:
    """Return a table that says the same place of all code units."""
    table = bytearray()
    step = place.line - place.first_line
    has_columns = place.end_line is not None and place.column is not None and place.end_column is not None
    while units > 0:
        covered = min(units, 8)
        table.append(0x80 | (_LINE_AND_COLUMNS if has_columns else _LINE) << 3 | covered - 1)
        table += _varint(-step << 1 | 1 if step < 0 else step << 1)
        if place.end_line is not None and place.column is not None and place.end_column is not None:
            table += _varint(place.end_line - place.line) + _varint(place.column + 1) + _varint(place.end_column + 1)
        units, step = units - covered, 0
    return bytes(table)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x40:
        found.append(number & 0x3F | 0x40)
        number >>= 6
    found.append(number)
    return bytes(found)


def with_source(text: str) -> str:
    """Return a formatted traceback from elsewhere, with the lines of source that are known here where it has none."""
    return _NO_SOURCE.sub(_add_source, text)


def _add_source(entry: re.Match[str]) -> str:
    source = linecache.getline(entry[2], int(entry[3])).strip()
    return f"{entry[0]}{entry[1]}  {source}\n" if source else entry[0]
