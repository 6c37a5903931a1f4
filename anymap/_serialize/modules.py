"""How the caller's modules reach a worker, on every backend.

A worker imports what is installed where it runs. After its own directories it searches those of the caller's ``sys.path``
that exist there, unless the engine is the user's, in whose workers nothing is changed. Before all else it finds the
modules that were shipped: their files travel with the tasks.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from importlib.machinery import FileFinder
from typing import TYPE_CHECKING, NamedTuple

from anymap._errors import ConfigError
from anymap._host import process_state, spill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec


class Shipment(NamedTuple):
    """Files of top-level modules and packages."""

    names: tuple[str, ...]
    digest: str
    archive: bytes


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return what an option called ``ship_modules`` was given; raises :class:`~anymap.ConfigError` for anything but names."""
    if isinstance(names, str):
        raise ConfigError(f"ship_modules must be a list of names, not the string {names!r}")
    listed = tuple(names) if isinstance(names, Iterable) else None
    if listed is None or not all(isinstance(name, str) for name in listed):
        raise ConfigError(f"ship_modules must be a list of names, not {names!r}")
    return listed


def caller_path() -> tuple[str, ...]:
    """Return where this process finds modules now: ``sys.path``, with each directory by its whole name."""
    if all(map(os.path.isabs, _text(sys.path))):
        return tuple(_text(sys.path))
    with suppress(FileNotFoundError):
        return tuple(map(_whole, _text(sys.path)))
    # The current directory has been removed: Python finds nothing below it.
    return tuple(entry for entry in _text(sys.path) if os.path.isabs(entry))


def _text(path: list[str]) -> list[str]:
    return [entry for entry in path if isinstance(entry, str)]


def _whole(entry: str) -> str:
    # What Python has once looked for in a relative entry, it seeks there ever after; only the empty one is always current.
    finder = sys.path_importer_cache.get(entry) if entry else None
    return os.path.abspath(finder.path if isinstance(finder, FileFinder) else entry)


def pack(names: Iterable[str]) -> Shipment:
    """Pack the files of modules; raises :class:`~anymap.ConfigError` for one that has none."""
    import hashlib  # noqa: PLC0415 - few maps ship anything, and each worker imports this module
    import zipfile  # noqa: PLC0415 - as hashlib

    names = tuple(sorted(set(names)))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            for path, inside in _files(name):
                archive.writestr(zipfile.ZipInfo(inside), _read(path), zipfile.ZIP_DEFLATED)
    data = file.getvalue()
    return Shipment(names, hashlib.blake2b(data, digest_size=16).hexdigest(), data)


def _files(name: str) -> Iterator[tuple[str, str]]:
    """Yield each file of a module with its path in the archive."""
    spec = _find(name)
    if not spec.submodule_search_locations:
        assert spec.origin is not None  # noqa: S101 - _find has seen to it
        yield spec.origin, os.path.basename(spec.origin)
        return
    for folder in spec.submodule_search_locations:
        for where, folders, files in os.walk(folder):
            folders[:] = sorted(set(folders) - {"__pycache__"})
            for file in sorted(files):
                path = os.path.join(where, file)
                yield path, os.path.join(name, os.path.relpath(path, folder))


def _find(name: str) -> ModuleSpec:
    if not name.isidentifier():
        raise ConfigError(f"ship_modules takes names of top-level modules and packages, not {name!r}")
    if name == "__main__":
        raise ConfigError("ship_modules: '__main__' is the worker's own there; what it defines travels by itself")
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that the program has made, without a spec
        spec = None
    if spec is None:
        raise ConfigError(f"ship_modules: there is no module {name!r} here")
    if not spec.submodule_search_locations and not (spec.has_location and spec.origin and os.path.isfile(spec.origin)):
        raise ConfigError(f"ship_modules: module {name!r} has no file of its own that could be sent")
    return spec


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


_lock = threading.Lock()
_installed: dict[str, str] = {}
"""Which digest the files have that each shipped module was loaded from."""
_folders: dict[str, str] = {}


def install(shipment: Shipment) -> None:
    """Make the modules importable in this process, in the place of what else goes by their names."""
    with _lock:
        if any(_installed.get(name) != shipment.digest for name in shipment.names):
            folder = _unpack(shipment)
            _forget(shipment.names)
            if folder in sys.path:
                sys.path.remove(folder)
            sys.path.insert(0, folder)
            process_state.keep_on_path(folder)
            importlib.invalidate_caches()
            _installed.update(dict.fromkeys(shipment.names, shipment.digest))


_extended: tuple[str, ...] = ()
"""The caller's path that this process has taken in."""


def extend_path(path: tuple[str, ...]) -> None:
    """Search the caller's directories too, as far as they exist here, after those that this process has."""
    global _extended  # noqa: PLW0603 - a fact about the process
    if path == _extended:
        return
    process_state.keep_path()
    with _lock:
        sys.path += [entry for entry in path if entry not in sys.path and os.path.exists(entry)]
        _extended = path


def _unpack(shipment: Shipment) -> str:
    import zipfile  # noqa: PLC0415 - as in pack

    if shipment.digest not in _folders:
        folder = spill.make_folder()
        with zipfile.ZipFile(io.BytesIO(shipment.archive)) as archive:
            archive.extractall(folder)
        _folders[shipment.digest] = folder
    return _folders[shipment.digest]


def _forget(names: tuple[str, ...]) -> None:
    """Have the modules and all below them imported anew."""
    for module in [module for module in sys.modules if module.partition(".")[0] in names]:
        del sys.modules[module]
