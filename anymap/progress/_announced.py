"""Sinks of other packages: what they announce by entry points, and that it is one."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from anymap._errors import ConfigError
from anymap._host import guarded

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from anymap.progress.events import Sink

_GROUP = "anymap.sinks"


@functools.cache
def announced() -> dict[str, EntryPoint]:
    """Return by their names what installed packages announce. Nothing of theirs is imported."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - takes longer to import than a small map to run

    # The first on the path wins, as with modules.
    return {point.name: point for point in reversed(tuple(entry_points(group=_GROUP)))}


def make(name: str) -> Sink:
    """Return a new sink of the name that a package has announced."""
    point = announced()[name]
    try:
        sink: Any = point.load()()
    except Exception as exc:
        raise _broken(point, f"cannot be made: {type(exc).__name__}: {guarded.text(exc)}") from exc
    if not callable(sink):
        raise _broken(point, f"is no callable that takes an event, but {sink!r}")
    return sink  # type: ignore[no-any-return]


def _broken(point: EntryPoint, how: str) -> ConfigError:
    package = f" of the package {point.dist.name}" if point.dist is not None else ""
    return ConfigError(f"progress={point.name!r}: the sink at {point.value}{package} {how}")
