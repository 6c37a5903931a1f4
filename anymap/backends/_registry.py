"""Which backends there are. A table: name, where its class is, and what to install if that is missing.

Nothing is imported until a backend is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anymap._errors import BackendUnavailable, ConfigError, UnknownBackend

if TYPE_CHECKING:
    from anymap.backends.base import Backend, Traits

_GROUP = "anymap.backends"


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A line of :func:`available_backends`."""

    name: str
    available: bool
    """What it runs on is installed."""
    reason: str
    """Why it is not available; empty if it is."""
    install: str
    """The command that installs what it runs on; empty if nothing needs to be."""
    traits: dict[str, bool]
    """What it can do, by the names of :class:`anymap.backends.Traits`; empty until it is known without an import."""


@dataclass(frozen=True, slots=True)
class _Entry:
    target: str
    """``module:Class``."""
    requires: tuple[str, ...] = ()
    """Modules that must be there; looked for, not imported."""
    install: str = ""
    traits: tuple[str, ...] = ()


def _extra(name: str) -> str:
    return f"pip install 'anypmap[{name}]'"


_ours: dict[str, _Entry] = {
    "serial": _Entry("anymap.backends.serial:Serial", traits=("shares_memory", "inline", "sees_death")),
    "threads": _Entry("anymap.backends.threads:Threads", traits=("shares_memory", "sees_death")),
    "processes": _Entry("anymap.backends.processes:Processes", traits=("kills", "sees_death")),
    "pathos": _Entry("anymap.backends.pathos:Pathos", ("pathos",), _extra("pathos"), ("kills", "sees_death", "forks")),
    "joblib": _Entry("anymap.backends.joblib:Joblib", ("joblib",), _extra("joblib"), ("kills", "sees_death")),
    "dask": _Entry(
        "anymap.backends.dask:Dask",
        ("dask", "distributed"),
        _extra("dask"),
        ("remote", "live", "sees_death", "carries"),
    ),
}
_registered: dict[str, type[Backend] | _Entry] = {}
_plugins: dict[str, _Entry] | None = None


def register(name: str, backend: type[Backend] | str, *, requires: tuple[str, ...] = (), install: str = "") -> None:
    """Make a backend known in this process under ``name``.

    ``backend`` is the class or, so that nothing is imported before it is asked for, ``"module:Class"``. ``requires``
    are the modules it needs, ``install`` the command that installs them. A package announces its backends by an entry
    point in the group ``anymap.backends`` instead. A name that is taken is a :class:`ConfigError`, unless by the same.
    """
    if not isinstance(name, str):
        raise ConfigError(f"register: name must be a string, not {name!r}")
    if not isinstance(backend, str | type) or (isinstance(backend, str) and ":" not in backend):
        raise ConfigError(f"register: backend must be a class or 'module:Class', not {backend!r}")
    if isinstance(requires, str):
        raise ConfigError(f"register: requires must be a tuple of modules' names, not the string {requires!r}")
    entry = _Entry(backend, requires, install) if isinstance(backend, str) else backend
    taken = _ours.get(name) or _registered.get(name)
    if taken is not None and taken != entry:
        raise ConfigError(f"a backend called {name!r} is already registered: {taken!r}; choose another name")
    if name not in _ours:
        _registered[name] = entry


def find(name: str) -> type[Backend]:
    """Return the backend class called ``name``, importing it if need be."""
    # What others announce is read last, as that takes longer than a small map.
    entry = _ours.get(name) or _registered.get(name) or _announced().get(name)
    if entry is None:
        raise UnknownBackend(name, _known())
    if not isinstance(entry, _Entry):
        return entry
    missing = _missing(entry)
    if missing:
        install = entry.install or f"pip install {missing}"
        raise BackendUnavailable(name, f"the module {missing!r} is not installed", install)
    return _load(name, entry)


def load(target: str) -> type[Backend]:
    """Return the class at ``module:Class``, which need not be known by a name."""
    return _load(target, _Entry(target))


def _load(name: str, entry: _Entry) -> type[Backend]:
    module, _, attribute = entry.target.partition(":")
    try:
        found: type[Backend] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as exc:
        # Only a module outside the backend's own package is something to install; the rest is a bug to be seen.
        if exc.name is None or exc.name.partition(".")[0] == module.partition(".")[0]:
            raise
        install = entry.install or f"pip install {exc.name.partition('.')[0]}"
        raise BackendUnavailable(name, f"the module {exc.name!r} is not installed", install) from exc
    return found


def available_backends() -> list[BackendInfo]:
    """List the backends that there are, and whether they can be used here, without importing any of their engines.

    >>> import anymap
    >>> [info.name for info in anymap.available_backends() if info.available][:2]
    ['serial', 'threads']
    """
    return [_describe(name, entry) for name, entry in _known().items()]


def known_names() -> list[str]:
    """Return the names of all backends, whether they can be used here or not."""
    return list(_known())


def _describe(name: str, entry: type[Backend] | _Entry) -> BackendInfo:
    if not isinstance(entry, _Entry):
        return BackendInfo(name, available=True, reason="", install="", traits=_as_dict(entry.traits))
    missing = _missing(entry)
    reason = f"the module {missing!r} is not installed" if missing else ""
    traits = dict.fromkeys(entry.traits, True)
    return BackendInfo(name, not missing, reason, entry.install, traits)


def _as_dict(traits: Traits) -> dict[str, bool]:
    return {name: True for name in traits.__slots__ if getattr(traits, name)}


def _missing(entry: _Entry) -> str | None:
    return next((module for module in (*entry.requires, entry.target.partition(".")[0]) if not _is_there(module)), None)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(":")[0]) is not None
    except (ImportError, ValueError):
        return False


def _known() -> dict[str, type[Backend] | _Entry]:
    # Ours come first in the list, and no other takes the name of one of them.
    return {**_ours, **_announced(), **_registered, **_ours}


def _announced() -> dict[str, _Entry]:
    """Return what installed packages announce, read once."""
    global _plugins  # noqa: PLW0603 - a cache of the process
    if _plugins is None:
        from importlib.metadata import entry_points  # noqa: PLC0415 - takes longer to import than a small map to run

        points = entry_points(group=_GROUP)
        _plugins = {point.name: _Entry(point.value, install="") for point in points}
    return _plugins
