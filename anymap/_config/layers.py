"""Which of the places that say something holds, from the highest to the lowest.

1. ``ANYMAP_FORCE_BACKEND``
2. the arguments of the call (they are not here: a call asks for a setting where its argument is left out)
3. ``using`` blocks, the innermost first
4. ``configure``
5. the environment
6. the configuration file
7. a library's hint, where it concerns the backend
8. the default

A profile stands where it is chosen: below what is said beside the choice, above all that is said elsewhere. In the file
itself it stands above what the file says outside of it. Inside of a map, what its caller passes on takes the place of 4 to 6.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._config import files, variables
from anymap._config.scope import Inherited, Scope, around, scope
from anymap._config.settings import OF_INNER_MAPS, OF_THE_OUTERMOST, SETTINGS
from anymap._config.values import Layer, Value
from anymap._errors import ConfigError
from anymap._hints import did_you_mean

if TYPE_CHECKING:
    from anymap._config.files import File

_DEFAULTS: Layer = {name: Value(setting.default, "default") for name, setting in SETTINGS.items()}
_PASSED_ON = "passed on by the map around this one"

configured: Layer = {}
"""What :func:`anymap.configure` has been told. Replaced, never changed."""


class Config:
    """All settings as they hold for one map. Never changed."""

    def __init__(self, layer: Layer, inherited: Inherited | None) -> None:
        self._layer = layer
        self.inherited = inherited

    def value(self, name: str) -> Any:
        return self._layer[name].value

    def said(self, name: str) -> Value | None:
        """Return a setting with its origin; ``None`` where there is but the default."""
        found = self._layer[name]
        return None if found is _DEFAULTS[name] else found

    @property
    def force_backend(self) -> Value | None:
        """What beats every other choice of a backend, in any program."""
        return self._layer.get("force_backend")

    def options(self, backend: str) -> Layer:
        """Return what is said of a backend, by the names of its options."""
        start = f"backends.{backend}."
        return {name.removeprefix(start): value for name, value in self._layer.items() if name.startswith(start)}

    def all(self) -> Layer:
        return dict(self._layer)

    @property
    def depth(self) -> int:
        """How many maps the running code is inside of."""
        return 0 if self.inherited is None else self.inherited.depth

    def passed_on(self, workers: int) -> Inherited:
        """Return what a map of so many workers passes on to those inside of it."""
        around = 1 if self.inherited is None else self.inherited.workers
        nested, force = self.value("nested"), self.force_backend
        said = {name: value for name, (value, origin) in self._layer.items() if origin != "default"}
        names = said.keys() - {*OF_THE_OUTERMOST} if nested == "inherit" else OF_INNER_MAPS
        values = {name: said[name] for name in names if name in said}
        forced = None if force is None else force.value
        # A cluster may have no workers yet.
        return Inherited(self.depth + 1, nested, forced, around * max(workers, 1), values)


class NotPassedOn(NamedTuple):
    """Stands in a worker for a setting that exists in its caller's process alone."""

    what: str


def portable(inherited: Inherited) -> Inherited:
    """Return it fit for another process."""
    values: Any = inherited.values
    if all(isinstance(value, str | int | float | None) for value in values.values()):
        return inherited
    return inherited._replace(values=_pickled({name: _sendable(value) for name, value in values.items()}))


def _sendable(value: Any) -> Any:
    try:
        _pickled(value)
    except Exception:  # noqa: BLE001 - whatever it is, it stays here; a worker that asks for it gets an error
        return NotPassedOn(repr(value))
    return value


def _pickled(value: Any) -> bytes:
    from anymap._host import by_value  # noqa: PLC0415 - not where nothing is set

    return by_value.dumps(value)


def current() -> Config:
    """Return the settings that hold here and now."""
    global _last  # noqa: PLW0603 - a cache of the process: a small map takes less time than to put all this together
    here = scope.get()
    if here.inherited is None and around:
        here = Scope(here.using, around[-1])
    outside = (configured, variables.layer(), files.read()) if here.inherited is None else ()
    key = (here, *outside)
    if len(key) != len(_last[0]) or any(new is not old for new, old in zip(key, _last[0], strict=True)):
        _last = key, Config(_merged(here, *outside), here.inherited)
    return _last[1]


_last: tuple[tuple[Any, ...], Config] = ((), Config({}, None))


def _merged(here: Scope, *outside: Any) -> Layer:
    if outside:
        layers = _with_profile([*reversed(here.using), *outside[:2]], outside[2])
    else:
        layers = [*reversed(here.using), _inherited_layer(here.inherited)]
    merged = dict(_DEFAULTS)
    for layer in reversed(layers):
        merged |= layer
    return merged


def _inherited_layer(inherited: Inherited | None) -> Layer:
    assert inherited is not None  # noqa: S101 - there is, inside of a map
    values = pickle.loads(inherited.values) if isinstance(inherited.values, bytes) else inherited.values
    layer = {name: Value(value, _PASSED_ON) for name, value in values.items()}
    layer["nested"] = Value(inherited.nested, _PASSED_ON)
    if inherited.force_backend is not None:
        layer["force_backend"] = Value(inherited.force_backend, _PASSED_ON)
    return layer


def _with_profile(layers: list[Layer], file: File) -> list[Layer]:
    """Return all layers with the one profile that is chosen in its place."""
    for position, layer in enumerate(layers):
        if (chosen := layer.get("profile")) is not None:
            return [*layers[: position + 1], _profile(chosen, file), *layers[position + 1 :], file.layer]
    if (chosen := file.layer.get("profile")) is not None:
        return [*layers, _profile(chosen, file), file.layer]
    return [*layers, file.layer]


def _profile(chosen: Value, file: File) -> Layer:
    if chosen.value not in file.profiles:
        known = ", ".join(map(repr, file.profiles)) or "none"
        where = f"{file.path} has {known}" if file.path else "there is no configuration file"
        hint = did_you_mean(chosen.value, file.profiles)
        raise ConfigError(
            f"{chosen.origin}: there is no profile {chosen.value!r}.{hint} Profiles stand in the file: {where}"
        )
    return {
        name: Value(value, f"profile {chosen.value!r} ({origin})")
        for name, (value, origin) in file.profiles[chosen.value].items()
    }
