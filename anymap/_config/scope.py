"""What holds where code runs: the ``using`` blocks that it is inside of, and what a map's caller has passed on to it.

Workers import this, and nothing else of the configuration.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anymap._config.values import Layer


class Inherited(NamedTuple):
    """What a map passes on to the maps inside of it. Pickles small."""

    depth: int = 1
    """How many maps are around it."""
    nested: str = "serial"
    """The rule for where they run."""
    force_backend: str | None = None
    workers: int = 1
    """How many workers the maps around them have, multiplied: they share the CPUs."""
    values: Mapping[str, Any] | bytes = {}
    """The caller's settings that hold for them too; pickled where that takes more than numbers and text."""


class Scope(NamedTuple):
    using: tuple[Layer, ...] = ()
    """The innermost block last."""
    inherited: Inherited | None = None
    """``None`` outside of all maps."""


around: list[Inherited] = []
"""Of the maps whose items this process runs for another one. Threads that a function starts are inside of them, too."""

_OUTSIDE = Scope()
scope: ContextVar[Scope] = ContextVar("anymap_scope", default=_OUTSIDE)
