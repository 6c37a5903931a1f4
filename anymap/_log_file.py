"""The log file that is set from outside: the root logger has it from the first map on, for as long as it is set."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from anymap import _forks
from anymap._errors import ConfigError

if TYPE_CHECKING:
    from anymap._config.values import Value

_lock = _forks.Lock()
_held: tuple[dict[str, Any], logging.Handler] | None = None


def hold(said: Value | None) -> None:
    """Have the root logger write to the file that is set, and to no other that was set before."""
    global _held  # noqa: PLW0603 - the root logger is one, too
    wanted = None if said is None else said.value
    if wanted == (None if _held is None else _held[0]):
        return
    with _lock:
        if _held is not None:
            logging.getLogger().removeHandler(_held[1])
            _held[1].close()
            _held = None
        if said is not None:
            _held = said.value, _opened(said)
            logging.getLogger().addHandler(_held[1])


def _opened(said: Value) -> logging.Handler:
    from anymap.logs import rotating_file  # noqa: PLC0415 - wanted by few

    options = {name: value for name, value in said.value.items() if name != "file"}
    try:
        return rotating_file(said.value["file"], **options)
    except ConfigError as exc:
        raise ConfigError(f"{said.origin}: log_file: {exc}") from None
