"""Logging from many processes: one rotating file that they all write to, and a format that knows items.

That records of workers reach the caller's logging needs nothing of this: see the page on logs.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any

from anymap._errors import ConfigError
from anymap._host import forks
from anymap._propagate.log_records import FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anymap._config.layers import Config

__all__ = ["Formatter", "rotating_file"]


def __dir__() -> list[str]:
    return sorted(__all__)


_WHEN = re.compile(r"([1-9]\d*)?[SMHD]")


class Formatter(logging.Formatter):
    """A formatter for ``%(anymap_item)s``, ``%(anymap_backend)s``, ``%(anymap_worker)s`` and ``%(anymap_host)s``.

    Records of items have these attributes by themselves. What others do not have this one shows as ``-``, where the
    standard library's would fail. It takes the same arguments.

    >>> import logging
    >>> from anymap.logs import Formatter
    >>> Formatter("[%(anymap_item)s] %(message)s").format(logging.makeLogRecord({"msg": "ready"}))
    '[-] ready'
    """

    def __init__(self, *args: Any, defaults: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(*args, defaults={**dict.fromkeys(FIELDS, "-"), **(defaults or {})}, **options)

    def __repr__(self) -> str:
        return f"<anymap.logs.Formatter {self._fmt!r}>"


def rotating_file(
    filename: str | os.PathLike[str],
    *,
    max_bytes: int = 0,
    backups: int | None = 10,
    when: str | None = None,
    compress: bool = False,
    encoding: str = "utf-8",
) -> logging.Handler:
    """Return a handler for a log file that this process and its workers write to and rotate together.

    Add it to a logger. Workers on this machine that run this process's maps then write to the file themselves, whole
    lines, in turns: a line that was logged is in the file, though its worker be killed the next moment. What workers on
    other machines log is sent here and written here. All that write to the file must do so by such a handler, with
    equal settings.

    Args:
        filename: The file; lines are added to what it holds. Beside it lies a hidden lock file.
        max_bytes: Rotate when the file has so many bytes; 0: never for its size.
        backups: How many rotated files are kept, 1 or more; ``None``: all.
        when: Rotate also when a period of local time has ended: ``"S"``, ``"M"``, ``"H"``, ``"D"`` for a second, a minute,
            an hour, a day, with a number in front for several: ``"15M"``. Rotated files then bear the time of their
            last line, else a number, 1 for the latest.
        compress: Pack rotated files with gzip.
        encoding: Of the file. What it cannot express is written as a backslash escape.

    Raises:
        ConfigError: An argument has a wrong value.
        ImportError: concurrent-log-handler is not installed: ``pip install 'anypmap[logs]'``.

    For :func:`logging.config.dictConfig` it is a factory: ``{"()": "anymap.logs.rotating_file", "filename": "run.log"}``.

    >>> import logging
    >>> from anymap.logs import rotating_file
    >>> handler = rotating_file("run.log", max_bytes=10_000_000, backups=5)
    >>> logging.getLogger("mine").addHandler(handler)  # doctest: +SKIP
    >>> handler.close()
    """
    _check(filename, max_bytes, backups, when, encoding)
    try:
        from anymap._propagate.rotating import FileSettings, RotatingFile  # noqa: PLC0415 - the library is an extra
    except ModuleNotFoundError as exc:
        if exc.name not in {"concurrent_log_handler", "portalocker"}:
            raise
        message = "anymap.logs.rotating_file needs concurrent-log-handler: pip install 'anypmap[logs]'"
        raise ImportError(message, name=exc.name) from exc
    path = os.path.abspath(os.fspath(filename))
    return RotatingFile(FileSettings(path, max_bytes, backups, when, bool(compress), encoding))


_lock = forks.Lock()
_added: dict[str, logging.Handler] = {}
_LINE = "%(asctime)s %(levelname)s %(name)s %(process)d [%(anymap_item)s] %(message)s"


def _open_set_file(config: Config) -> None:
    """Have all that this process logs written to the file that the setting ``log_file`` names. A file is added once."""
    said = config.said("log_file")
    if said is not None and config.inherited is None:
        _add_to_root(said.value)


def _add_to_root(options: Mapping[str, Any]) -> None:
    path = os.path.abspath(os.fspath(options["filename"]))
    with _lock:
        if path not in _added:
            handler = rotating_file(**options)
            handler.setFormatter(Formatter(_LINE))
            logging.getLogger().addHandler(handler)
            _added[path] = handler


def _check(filename: object, max_bytes: object, backups: object, when: object, encoding: object, **_: object) -> None:
    if not isinstance(filename, str | os.PathLike):
        raise ConfigError(f"filename must be the path of the log file, not {filename!r}")
    if not _is_count(max_bytes, 0):
        raise ConfigError(f"max_bytes must be a number of bytes, 0 or more, not {max_bytes!r}")
    if backups is not None and not _is_count(backups, 1):
        raise ConfigError(f"backups must be a number of files, 1 or more, or None, not {backups!r}")
    if when is not None and not (isinstance(when, str) and _WHEN.fullmatch(when)):
        raise ConfigError(f"when must be 'S', 'M', 'H' or 'D', with a number in front or without, not {when!r}")
    if not _is_encoding(encoding):
        raise ConfigError(f"encoding must be the name of a text encoding, such as 'utf-8', not {encoding!r}")


def _is_encoding(name: object) -> bool:
    try:
        return isinstance(name, str) and isinstance("".encode(name), bytes)
    except LookupError:
        return False


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
