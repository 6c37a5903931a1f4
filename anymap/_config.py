"""Settings that come from outside the call. Read at each map, never at import."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

_PREFIX = "ANYMAP_"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; ``None`` where it says nothing."""

    force_backend: str | None
    """Beats every other choice, in any program."""
    backend: str | None
    workers: str | None
    progress: str | None
    show_items: str | None
    """Whether an item's ``repr`` may stand in notes and messages: ``on`` or ``off``."""


def current() -> Settings:
    """Read ``ANYMAP_FORCE_BACKEND``, ``ANYMAP_BACKEND`` and so on: a variable for each field."""
    return Settings(*(_variable(field.name.upper()) for field in fields(Settings)))


def _variable(name: str) -> str | None:
    return os.environ.get(_PREFIX + name, "").strip() or None
