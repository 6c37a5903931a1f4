"""Modules of the caller's that a worker has not: packed here, unpacked there, imported as any other."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

from anymap import _spool
from anymap._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.machinery import ModuleSpec


class Shipment(NamedTuple):
    """Files of top-level modules and packages."""

    names: tuple[str, ...]
    digest: str
    archive: bytes


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
    except ValueError:  # a module that somebody has made, without a spec
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
            importlib.invalidate_caches()
            _installed.update(dict.fromkeys(shipment.names, shipment.digest))


def _unpack(shipment: Shipment) -> str:
    import zipfile  # noqa: PLC0415 - as in pack

    if shipment.digest not in _folders:
        folder = _spool.make_folder()
        with zipfile.ZipFile(io.BytesIO(shipment.archive)) as archive:
            archive.extractall(folder)
        _folders[shipment.digest] = folder
    return _folders[shipment.digest]


def _forget(names: tuple[str, ...]) -> None:
    """Have the modules and all below them imported anew."""
    for module in [module for module in sys.modules if module.partition(".")[0] in names]:
        del sys.modules[module]
