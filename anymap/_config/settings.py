"""The settings there are: what each is called, what it may be, and what holds where nobody says anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from anymap._config import checks
from anymap._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal


class Setting(NamedTuple):
    check: Callable[[str, Any], Any]
    default: Any = None


def _retries(where: str, value: Any) -> Any:
    if hasattr(value, "delay"):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{where} must be a number of attempts, 0 or more, not {value!r}; or give a Retry(...)")
    return value


SETTINGS = {
    "backend": Setting(checks.anything),
    "workers": Setting(checks.workers),
    "progress": Setting(checks.anything),
    "retries": Setting(_retries, 0),
    "timeout": Setting(checks.seconds),
    "chunksize": Setting(checks.count),
    "window": Setting(checks.count),
    "nested": Setting(checks.one_of("serial", "threads", "inherit"), "serial"),
    "inner_threads": Setting(checks.count),
    "idle_timeout": Setting(checks.seconds, 60.0),
    "show_items": Setting(checks.switch, default=True),
}

OF_INNER_MAPS = ("show_items", "inner_threads", "idle_timeout")
"""What a map passes on to those inside of it by any rule; by the rule ``inherit`` all but ``progress``."""


class Settings(TypedDict, total=False):
    """What :func:`using` and :func:`configure` take. ``None`` leaves a setting as it is elsewhere."""

    backend: Any
    """Where maps run: whatever :func:`pmap` takes as its ``backend``."""
    workers: int | str | None
    """How many items run at once: as :func:`pmap` takes it."""
    progress: Any
    """What is shown: as :func:`pmap` takes it."""
    retries: Any
    """How often a failed item is tried again: a number, or a :class:`Retry`."""
    timeout: float | None
    """Seconds that one attempt of an item may take."""
    chunksize: int | None
    """How many items travel together."""
    window: int | None
    """How many items may be under way."""
    nested: Literal["serial", "threads", "inherit"] | None
    """Where a map inside another one runs that names no backend: where it is called, one item after another (the
    default); in threads; or where its caller's maps run."""
    inner_threads: int | None
    """How many threads numerical libraries may use in each worker. By default the CPUs are shared out evenly."""
    idle_timeout: float | None
    """Seconds after which workers that nobody needs end; 60 by default."""
    show_items: bool | Literal["on", "off"] | None
    """Whether an item's ``repr`` may stand in messages: not where items are secret."""
    profile: str | None
    """The profile of the configuration file that holds."""
    backends: Mapping[str, Mapping[str, Any]] | None
    """Options of backends, by name: ``{"dask": {"address": "tcp://..."}}``. Each is for that backend alone."""


def check(name: str, where: str, value: Any) -> Any:
    """Return the value of a setting, or raise a ``ConfigError`` that says what it may be."""
    return SETTINGS[name].check(where, value)
