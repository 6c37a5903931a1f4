"""What a setting or an argument may be. Each check returns the value to go on with, or raises a ``ConfigError``.

``where`` is what the value is called where it stands: ``timeout``, ``ANYMAP_TIMEOUT``, a file with its line.
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any

from anymap._errors import ConfigError
from anymap._hints import did_you_mean
from anymap._host import cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SWITCH = {"on": True, "off": False}


def anything(where: str, value: Any) -> Any:  # noqa: ARG001 - a check's form
    return value


def one_of(*allowed: str) -> Callable[[str, Any], Any]:
    def check(where: str, value: Any) -> Any:
        if value not in allowed:
            choices = ", ".join(map(repr, allowed))
            raise ConfigError(f"{where} must be one of {choices}, not {value!r}.{did_you_mean(value, allowed)}")
        return value

    return check


def name(where: str, given: str, known: Iterable[str]) -> None:
    """Raise a ``ConfigError`` if no setting has that name."""
    if given not in (known := list(known)):
        hint = did_you_mean(given, known)
        raise ConfigError(f"{where}: there is no setting {given!r}.{hint} There are: {', '.join(known)}")


def flag(where: str, value: Any) -> bool:
    # A comparison of numpy's gives a bool of its own.
    if not isinstance(value, bool) and (type(value).__module__, type(value).__name__.rstrip("_")) != ("numpy", "bool"):
        raise ConfigError(f"{where} must be True or False, not {value!r}")
    return bool(value)


def switch(where: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _SWITCH:
        return _SWITCH[value.lower()]
    if not isinstance(value, bool):
        raise ConfigError(f"{where} must be one of 'on', 'off', True, False, not {value!r}")
    return value


def text(where: str, value: Any) -> str | None:
    if not isinstance(value, str | None):
        raise ConfigError(f"{where} must be a string, not {value!r}")
    return value


def workers(where: str, value: Any) -> Any:
    """A share of the CPUs stays one: they are counted where the map runs."""
    cpus.count_workers(value, where)
    return value


def count(where: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise ConfigError(f"{where} must be a whole number, 1 or more, not {value!r}")
    return int(value.__index__())


def seconds(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"{where} must be a number of seconds above 0, not {value!r}")
    return float(value)


def whole(where: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise ConfigError(f"{where} must be a whole number, 0 or more, not {value!r}")
    return number


def max_failures(where: str, value: Any) -> int | float:
    """A count; ``"5%"`` becomes a share below 1."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        if (share := float(match[1]) / 100) <= 1:
            return share
    elif not isinstance(value, bool) and hasattr(value, "__index__") and value.__index__() >= 0:
        return int(value.__index__())
    raise ConfigError(f"{where} must be a count, 0 or more, or a share up to '100%', such as '5%', not {value!r}")
