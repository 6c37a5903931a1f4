"""How the surroundings of a call travel with its items: the settings for it."""

from __future__ import annotations

import os
from typing import NamedTuple

from anymap._errors import ConfigError

LOGS = ("forward", "off")
OUTPUT = ("inherit", "forward", "keep")


class Surroundings(NamedTuple):
    """What workers take over of the caller's surroundings, and give back."""

    logs: str = "forward"
    """``"forward"``: what items log and warn of reaches the caller's logging. ``"off"``: it stays where it is."""
    output: str = "inherit"
    """What items print. ``"inherit"``: goes where the worker's output goes; ``"forward"``: is printed by the caller, above
    the bar, whole lines at a time; ``"keep"``: is in :attr:`Failure.output` of items that fail."""
    output_prefix: str = ""
    """Stands before each line that is forwarded; ``{item}``, ``{backend}``, ``{worker}``, ``{host}`` are filled in."""
    context: tuple[str, ...] = ()
    """Context variables of the caller that items see: ``"module:variable"``."""


def current() -> Surroundings:
    """Return the settings, as the environment has them."""
    return checked(
        Surroundings(
            logs=_variable("ANYMAP_LOGS", "forward"),
            output=_variable("ANYMAP_OUTPUT", "inherit"),
            output_prefix=os.environ.get("ANYMAP_OUTPUT_PREFIX", ""),
            context=tuple(filter(None, map(str.strip, _variable("ANYMAP_CONTEXT", "").split(",")))),
        )
    )


def checked(settings: Surroundings) -> Surroundings:
    """Raise :class:`~anymap.ConfigError` where a value is none of those allowed."""
    for name, value, allowed in ("logs", settings.logs, LOGS), ("output", settings.output, OUTPUT):
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    for name in settings.context:
        if not all(part.replace(".", "_").isidentifier() for part in name.split(":")) or name.count(":") != 1:
            raise ConfigError(f"context names a variable as 'module:variable', not {name!r}")
    try:
        settings.output_prefix.format(item=0, backend="", worker=0, host="")
    except (LookupError, ValueError) as exc:
        message = (
            f"output_prefix={settings.output_prefix!r}: {exc}; it may name {{item}}, {{backend}}, {{worker}}, {{host}}"
        )
        raise ConfigError(message) from None
    return settings


def _variable(name: str, default: str) -> str:
    return os.environ.get(name, "").strip() or default
