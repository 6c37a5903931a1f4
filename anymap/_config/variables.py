"""What the environment says."""

from __future__ import annotations

import os
import re
from typing import Any

from anymap._config import settings
from anymap._config.values import Layer, Value
from anymap._errors import ConfigError
from anymap._hints import did_you_mean

_PREFIX = "ANYMAP_"
_OPTION = re.compile(r"BACKENDS__([A-Z0-9_]+?)__([A-Z0-9_]+)")
_OTHERS = ("FORCE_BACKEND", "PROFILE", "CONFIG", "BACKENDS__<NAME>__<OPTION>")
"""Variables that are no setting of their own."""

_seen: tuple[dict[Any, Any], Layer] = ({}, {})


def layer() -> Layer:
    """Return what the environment says now; the same object as long as nothing has changed in it."""
    global _seen  # noqa: PLW0603 - a cache of the process: to look through all variables takes a good part of a small map
    environment = os.environ._data  # type: ignore[attr-defined]
    if environment != _seen[0]:
        _seen = dict(environment), _read()
    return _seen[1]


def _read() -> Layer:
    said: Layer = {}
    for variable, given in os.environ.items():
        if variable.startswith(_PREFIX) and (given := given.strip()):
            name, value = _named(variable, given)
            said[name] = Value(value, variable)
    return said


def _named(variable: str, given: str) -> tuple[str, Any]:
    """Return the name of the setting that a variable stands for, and its value."""
    rest = variable.removeprefix(_PREFIX)
    if match := _OPTION.fullmatch(rest):
        return f"backends.{match[1].lower()}.{match[2].lower()}", read_value(given)
    name = rest.lower()
    if rest in ("FORCE_BACKEND", "PROFILE", "CONFIG"):
        return name, given
    if name not in settings.SETTINGS:
        known = [*(each.upper() for each in settings.SETTINGS), *_OTHERS]
        hint = did_you_mean(variable, [_PREFIX + each for each in known])
        raise ConfigError(f"{variable}: there is no such setting.{hint} There are: {_PREFIX}{', '.join(known)}")
    return name, settings.check(name, variable, read_value(given))


def read_value(given: str) -> Any:
    """Return what is written: a TOML value where it is one, else the text itself.

    >>> read_value("4"), read_value("50%"), read_value("true"), read_value('["a", "b"]')
    (4, '50%', True, ['a', 'b'])
    """
    if given[:1].isalpha() and given not in ("true", "false", "inf"):
        return given
    import tomllib  # noqa: PLC0415 - only numbers and lists need it

    try:
        return tomllib.loads(f"value = {given}")["value"]
    except tomllib.TOMLDecodeError:
        return given
