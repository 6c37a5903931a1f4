"""What a configuration file says. One file counts, the first that is found.

* the one that ``ANYMAP_CONFIG`` names;
* the nearest ``anymap.toml``, or ``pyproject.toml`` with a table ``[tool.anymap]``, from the current folder upwards;
* ``anymap.toml`` in the user's configuration folder.

Files are data: nothing that they name is imported or run by reading them.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._config import checks, settings
from anymap._config.values import Layer, Value
from anymap._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OWN, _PROJECT = "anymap.toml", "pyproject.toml"
_TABLE = ("tool", "anymap")
_CONNECTS = frozenset({"address", "scheduler_file", "security"})
"""Options that say where to connect. Not to be taken from a file that came with whatever folder this is."""


class File(NamedTuple):
    path: str
    layer: Layer
    profiles: dict[str, Layer]


_NONE = File("", {}, {})
_known: dict[str | None, File] = {}


def read() -> File:
    """Return what the file says; read once, and again if ``ANYMAP_CONFIG`` changes."""
    named = os.environ.get("ANYMAP_CONFIG") or None
    if named not in _known:
        _known[named] = _find(named)
    return _known[named]


def forget() -> None:
    """Have the file looked for again at the next map."""
    _known.clear()


def user_path() -> str:
    """Return where the user's own file is, if there is one."""
    return os.path.join(_user_folder(), "anymap", _OWN)


def _user_folder() -> str:
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return os.environ.get("APPDATA") or home
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support")
    # https://specifications.freedesktop.org/basedir-spec
    return os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")


def _find(named: str | None) -> File:
    if named is not None:
        if not os.path.isfile(named) and named != os.devnull:
            raise ConfigError(f"ANYMAP_CONFIG names {named!r}, and there is no such file")
        return _load(named, _table_of(named), trusted=True)
    for folder in _folders_upwards():
        if (found := _in_folder(folder)) is not None:
            return found
    if os.path.isfile(user_path()):
        return _load(user_path(), (), trusted=True)
    return _NONE


def _table_of(path: str) -> tuple[str, ...]:
    return _TABLE if os.path.basename(path) == _PROJECT else ()


def _folders_upwards() -> Iterator[str]:
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        return
    while True:
        yield folder
        folder, below = os.path.dirname(folder), folder
        if folder == below:
            return


def _in_folder(folder: str) -> File | None:
    own, project = os.path.join(folder, _OWN), os.path.join(folder, _PROJECT)
    has_own, has_table = os.path.isfile(own), os.path.isfile(project) and _has_table(project)
    if has_own and has_table:
        raise ConfigError(f"both {own} and the table [tool.anymap] of {project} configure anymap: keep one of them")
    if has_own:
        return _load(own, (), trusted=False)
    return _load(project, _TABLE, trusted=False) if has_table else None


def _has_table(path: str) -> bool:
    with open(path, "rb") as file:
        # To parse every project's file on the way would make its faults ours.
        mentioned = b"anymap" in file.read()
    return mentioned and "anymap" in _parse(path)[1].get("tool", {})


def _load(path: str, table: tuple[str, ...], *, trusted: bool) -> File:
    text, data = _parse(path)
    for name in table:
        data = data.get(name, {})
    return _Reader(path, text, table, trusted=trusted).read(data)


def _parse(path: str) -> tuple[str, dict[str, Any]]:
    import tomllib  # noqa: PLC0415 - not where there is no file

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        return text, tomllib.loads(text)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc


class _Reader:
    """Turns the tables of one file into layers, and says of whatever is wrong in which line it stands."""

    def __init__(self, path: str, text: str, table: tuple[str, ...], *, trusted: bool) -> None:
        self._path = path
        self._text = text
        self._table = table
        self._trusted = trusted

    def read(self, data: Mapping[str, Any]) -> File:
        profiles = self._mapping(data.get("profiles", {}), "profiles")
        layer = self._layer({name: value for name, value in data.items() if name != "profiles"}, ())
        return File(
            self._path,
            layer,
            {
                name: self._layer(self._mapping(table, "profiles", name), ("profiles", name))
                for name, table in profiles.items()
            },
        )

    def _layer(self, data: Mapping[str, Any], at: tuple[str, ...]) -> Layer:
        said: Layer = {}
        for name, value in data.items():
            if name == "backends":
                said |= self._options(self._mapping(value, *at, name), (*at, name))
            elif name == "logs" and isinstance(value, dict):
                # The table [tool.anymap.logs] is about the file; what else is to be done with records is one word.
                options = {"filename" if key == "file" else key: each for key, each in value.items()}
                said["log_file"] = self._setting("log_file", options, (*at, name))
            elif name == "profile" and not at:
                said[name] = self._value(self._text_value(value, name), name)
            else:
                said[name] = self._setting(name, value, (*at, name))
        return said

    def _setting(self, name: str, value: Any, at: tuple[str, ...]) -> Value:
        origin = self._origin(*at)
        checks.name(origin, name, [*settings.SETTINGS, "backends", *(["profile", "profiles"] if len(at) == 1 else [])])
        return Value(settings.check(name, f"{origin}: {name}", value), origin)

    def _options(self, backends: Mapping[str, Any], at: tuple[str, ...]) -> Layer:
        said: Layer = {}
        for backend, options in backends.items():
            for option, value in self._mapping(options, *at, backend).items():
                where = (*at, backend, option)
                if option in _CONNECTS and not self._trusted:
                    raise ConfigError(self._untrusted(backend, option, where))
                said[f"backends.{backend}.{option}"] = self._value(value, *where)
        return said

    def _untrusted(self, backend: str, option: str, at: tuple[str, ...]) -> str:
        variable = f"ANYMAP_BACKENDS__{backend}__{option}".upper()
        return (
            f"{self._origin(*at)}: a file that was found by looking upwards from the current folder may not say where to "
            f"connect. Set backends.{backend}.{option} in your own file, {user_path()}, in one that ANYMAP_CONFIG names, "
            f"by the variable {variable}, or in code"
        )

    def _value(self, value: Any, *at: str) -> Value:
        return Value(value, self._origin(*at))

    def _text_value(self, value: Any, *at: str) -> str:
        if not isinstance(value, str):
            raise ConfigError(f"{self._origin(*at)}: {at[-1]} must be a string, not {value!r}")
        return value

    def _mapping(self, value: Any, *at: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise ConfigError(f"{self._origin(*at)}: {'.'.join(at)} must be a table, not {value!r}")
        return value

    def _origin(self, *at: str) -> str:
        line = find_line(self._text, (*self._table, *at))
        return self._path if line is None else f"{self._path}, line {line}"


_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_PART = re.compile(r"[\w-]+|\"[^\"]*\"|'[^']*'")


def find_line(text: str, wanted: tuple[str, ...]) -> int | None:
    """Return the number of the line of a TOML file where a key stands, or the table or inline table that holds it.

    tomllib does not tell.
    """
    header: tuple[str, ...] = ()
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _HEADER.fullmatch(line):
            header = found = _parts(match[1])
        elif match := _KEY.match(line):
            found = header + _parts(match[1])
        else:
            continue
        if wanted[: len(found)] == found and (best is None or len(found) > best[0]):
            best = len(found), number
    return best[1] if best is not None else None


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))
