"""One log file that many processes write to and rotate.

concurrent-log-handler gives the lock that they take turns by. Here stands what must hold though any of them may be
killed at any moment: a line is written in one go, a line that a killed process left torn is ended first, a rotation is
renames that lose nothing wherever they stop, and when it is due is read from the file itself.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from concurrent_log_handler import ConcurrentRotatingFileHandler

if TYPE_CHECKING:
    import io
    import logging
    from collections.abc import Iterator

_PACKED = ".gz"
_SECONDS = {"S": 1, "M": 60, "H": 3600, "D": 86400}
_STAMPS = {"S": "%Y-%m-%d_%H-%M-%S", "M": "%Y-%m-%d_%H-%M", "H": "%Y-%m-%d_%H", "D": "%Y-%m-%d"}
_STAMPED = re.compile(r"\.(\d{4}-\d\d-\d\d(?:_\d\d(?:-\d\d){0,2})?)(?:\.(\d+))?(?:\.gz)?")


class FileSettings(NamedTuple):
    """What every process that writes to the file must agree on."""

    path: str
    max_bytes: int
    backups: int | None
    when: str | None
    compress: bool
    encoding: str


handlers: weakref.WeakSet[RotatingFile] = weakref.WeakSet()
"""All of this process."""


class RotatingFile(ConcurrentRotatingFileHandler):  # type: ignore[misc]
    """A handler for one file of many processes; :func:`anymap.logs.rotating_file` makes it."""

    def __init__(self, settings: FileSettings) -> None:
        super().__init__(settings.path, encoding=settings.encoding)
        self.stream_lock: io.TextIOWrapper | None
        self.settings = settings
        self._file: int | None = None
        self._pid = os.getpid()
        handlers.add(self)

    def handle(self, record: logging.LogRecord) -> Any:
        # What a worker has written itself comes here as well.
        written = getattr(record, "anymap_written", ())
        if self.settings.path in written:
            return False
        is_written = super().handle(record)
        if is_written:
            record.anymap_written = [*written, self.settings.path]
        return is_written

    # --- what the base class calls with the lock in its hands ---------------------------------------------------------

    def _do_lock(self) -> None:
        # A fork has the parent's open lock file, and with it the parent's lock.
        if os.getpid() != self._pid:
            self._pid, self.is_locked = os.getpid(), False
            if self.stream_lock is not None:
                self.stream_lock.close()
                self.stream_lock = None
        super()._do_lock()

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: ARG002, N802 - the name is the base class's
        status = os.fstat(self._current())
        if not status.st_size:
            return False
        is_full = 0 < self.settings.max_bytes <= status.st_size
        return is_full or _period(self.settings.when, status.st_mtime) != _period(self.settings.when, time.time())

    def doRollover(self) -> None:  # noqa: N802 - the name is the base class's
        last_written = os.fstat(self._current()).st_mtime
        self._let_go()
        backup = self._free_number() if self.settings.when is None else self._free_stamp(last_written)
        os.replace(self.baseFilename, backup)
        if self.settings.compress:
            self._pack(backup)
        if self.settings.when is not None:
            self._remove_oldest()

    def do_write(self, msg: str) -> None:
        file = self._current()
        line = (msg + "\n").encode(self.settings.encoding, "backslashreplace")
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line
        while line:
            line = line[os.write(file, line) :]

    def close(self) -> None:
        self._let_go()
        super().close()

    # --- the open file ------------------------------------------------------------------------------------------------

    def _current(self) -> int:
        """Return the file, open; another process may have rotated it."""
        if self._file is not None and not _is_at(self._file, self.baseFilename):
            self._let_go()
        if self._file is None:
            self._file = os.open(self.baseFilename, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._file

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    # --- rotation -----------------------------------------------------------------------------------------------------

    def _free_number(self) -> str:
        """Move backups up by one, as far as there is no gap; return the name of the first."""
        top = 1
        while self._forms(top) and top != self.settings.backups:
            top += 1
        for path in self._forms(top):
            os.unlink(path)
        for number in range(top - 1, 0, -1):
            # Of a backup that is there in both forms the packed one is whole: the process was killed before it
            # removed the other.
            for path in self._forms(number)[1:]:
                os.unlink(path)
            for path in self._forms(number):
                ending = _PACKED if path.endswith(_PACKED) else ""
                os.replace(path, f"{self.baseFilename}.{number + 1}{ending}")
        return f"{self.baseFilename}.1"

    def _forms(self, number: int) -> list[str]:
        name = f"{self.baseFilename}.{number}"
        return [path for path in (name + _PACKED, name) if os.path.exists(path)]

    def _free_stamp(self, when: float) -> str:
        stamp = _STAMPS[(self.settings.when or "S")[-1]]
        stem = f"{self.baseFilename}.{time.strftime(stamp, time.localtime(when))}"
        name, number = stem, 0
        while os.path.exists(name) or os.path.exists(name + _PACKED):
            number += 1
            name = f"{stem}.{number}"
        return name

    def _pack(self, path: str) -> None:
        unfinished = f"{self.baseFilename}.packing"
        with open(path, "rb") as plain, gzip.open(unfinished, "wb") as packed:
            shutil.copyfileobj(plain, packed)
        os.replace(unfinished, path + _PACKED)
        os.unlink(path)

    def _remove_oldest(self) -> None:
        if self.settings.backups is None:
            return
        for _, path in sorted(self._stamped())[: -self.settings.backups]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _stamped(self) -> Iterator[tuple[tuple[str, int], str]]:
        folder, base = os.path.split(self.baseFilename)
        for name in os.listdir(folder):
            match = _STAMPED.fullmatch(name, len(base)) if name.startswith(base) else None
            if match:
                yield (match[1], int(match[2] or 0)), os.path.join(folder, name)


def _is_at(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _period(when: str | None, moment: float) -> int | None:
    """Return which period a moment is in: a number that rises by one at each local boundary."""
    if when is None:
        return None
    seconds = int(when[:-1] or 1) * _SECONDS[when[-1]]
    return (int(moment) + time.localtime(moment).tm_gmtoff) // seconds
