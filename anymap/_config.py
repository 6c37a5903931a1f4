"""Settings that come from outside the call. Read at each map, never at import."""

from __future__ import annotations

import os
from dataclasses import dataclass

_PREFIX = "ANYMAP_"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; ``None`` where it says nothing."""

    force_backend: str | None
    """Beats every other choice, in any program."""
    backend: str | None
    workers: str | None
    progress: str | None


def current() -> Settings:
    """Read ``ANYMAP_FORCE_BACKEND``, ``ANYMAP_BACKEND``, ``ANYMAP_WORKERS`` and ``ANYMAP_PROGRESS``."""
    return Settings(*(_variable(name) for name in ("FORCE_BACKEND", "BACKEND", "WORKERS", "PROGRESS")))


def _variable(name: str) -> str | None:
    return os.environ.get(_PREFIX + name, "").strip() or None
