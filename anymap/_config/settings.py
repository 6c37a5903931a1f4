"""The settings there are: what each is called, what it may be, and what holds where nobody says anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from anymap._config import checks
from anymap._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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


def _context(where: str, value: Any) -> tuple[str, ...]:
    names = [each.strip() for each in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise ConfigError(f"{where} must be a list of names such as 'module:variable', not {value!r}")
    for name in names:
        parts = name.split(":") if isinstance(name, str) else []
        if len(parts) != 2 or not all(part.replace(".", "_").isidentifier() for part in parts):
            raise ConfigError(f"{where} names a variable as 'module:variable', not {name!r}")
    return tuple(names)


def _prefix(where: str, value: Any) -> str:
    try:
        value.format(item=0, backend="", worker=0, host="")
    except (AttributeError, LookupError, ValueError) as exc:
        may = "it is text that may name {item}, {backend}, {worker}, {host}"
        raise ConfigError(f"{where} must not be {value!r} ({exc}): {may}") from None
    return str(value)


_OF_A_LOG_FILE = ("file", "max_bytes", "backups", "when", "compress", "encoding")


def _log_file(where: str, value: Any) -> dict[str, Any]:
    """A name, or a table with ``file`` and the arguments of ``rotating_file``, which looks at their values."""
    given = {"file": value} if isinstance(value, str) else value
    if not isinstance(given, dict) or not isinstance(given.get("file"), str):
        raise ConfigError(f"{where} must be the name of a file, or a table that has it as 'file', not {value!r}")
    for name in given:
        if name not in _OF_A_LOG_FILE:
            hint = checks.did_you_mean(name, _OF_A_LOG_FILE)
            raise ConfigError(f"{where} has no {name!r}.{hint} There are: {', '.join(_OF_A_LOG_FILE)}")
    return given


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
    "logs": Setting(checks.one_of("forward", "off"), "forward"),
    "log_file": Setting(_log_file),
    "output": Setting(checks.one_of("inherit", "forward", "keep"), "inherit"),
    "output_prefix": Setting(_prefix, ""),
    "context": Setting(_context, ()),
    "seed": Setting(checks.whole),
}

OF_INNER_MAPS = ("show_items", "inner_threads", "idle_timeout", "logs", "output", "output_prefix", "context")
"""What a map passes on to those inside of it by any rule."""
OF_THE_OUTERMOST = ("progress", "seed", "log_file", "force_backend", "profile", "config")
"""What it does not pass on by the rule ``inherit``, which passes on the rest."""


class Surroundings(NamedTuple):
    """What workers take over of the caller's surroundings, and give back."""

    logs: str
    output: str
    output_prefix: str
    context: tuple[str, ...]


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
    logs: Literal["forward", "off"] | None
    """What becomes of what items log and warn of: it reaches the caller's logging (the default), or stays where it is."""
    log_file: str | Mapping[str, Any] | None
    """A file that the caller and its workers log to together: its name, or a mapping with that as ``file`` and whatever
    else :func:`anymap.logs.rotating_file` takes."""
    output: Literal["inherit", "forward", "keep"] | None
    """What becomes of what items print: it goes where the worker's output goes (the default); it is printed by the
    caller, above the bar, whole lines at a time; or it is in :attr:`Failure.output` of items that fail."""
    output_prefix: str | None
    """Stands before each line that is forwarded; ``{item}``, ``{backend}``, ``{worker}``, ``{host}`` are filled in."""
    context: Sequence[str] | None
    """Context variables of the caller that items see, each as ``"module:variable"``."""
    seed: int | None
    """As :func:`pmap` takes it."""
    profile: str | None
    """The profile of the configuration file that holds."""
    backends: Mapping[str, Mapping[str, Any]] | None
    """Options of backends, by name: ``{"dask": {"address": "tcp://..."}}``. Each is for that backend alone."""


def check(name: str, where: str, value: Any) -> Any:
    """Return the value of a setting, or raise a ``ConfigError`` that says what it may be."""
    return SETTINGS[name].check(where, value)
