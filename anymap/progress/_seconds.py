from __future__ import annotations

from typing import Any

from anymap._errors import ConfigError


def check_seconds(name: str, value: Any) -> float:
    """Return the number of seconds that an argument of a sink was given; raise a ``ConfigError`` for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(f"{name} must be a number of seconds, 0 or more, not {value!r}")
    return float(value)
