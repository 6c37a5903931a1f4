"""The settings there are: what each is called, what it may be, and its default."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from anymap._config import checks
from anymap._errors import ConfigError
from anymap._hints import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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


def _prefix(where: str, value: Any) -> str:
    try:
        str(value).format(item=0, backend="", worker=0, host="")
    except (AttributeError, LookupError, ValueError):
        message = f"{where} may name {{item}}, {{backend}}, {{worker}} and {{host}}, and nothing else in braces, not {value!r}"
        raise ConfigError(message) from None
    return str(value)


def _context(where: str, value: Any) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where} must be a list of variables, each as 'module:variable', not {value!r}")
    names = tuple(name.strip() for name in names)
    for name in names:
        if not _VARIABLE.fullmatch(name):
            raise ConfigError(f"{where} must name each variable as 'module:variable', not {name!r}")
    return names


def _log_file(where: str, value: Any) -> Mapping[str, Any]:
    options = {"filename": value} if isinstance(value, str | os.PathLike) else value
    if not isinstance(options, Mapping) or "filename" not in options:
        raise ConfigError(f"{where} must be a file's name, or a table of what rotating_file takes, not {value!r}")
    for name in options:
        if name not in _OF_LOG_FILES:
            hint = did_you_mean(name, _OF_LOG_FILES)
            raise ConfigError(f"{where}: rotating_file takes no {name!r}.{hint} It takes {', '.join(_OF_LOG_FILES)}")
    return options


_VARIABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_OF_LOG_FILES = ("filename", "max_bytes", "backups", "when", "compress", "encoding")

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
    "seed": Setting(checks.whole),
    "logs": Setting(checks.one_of("forward", "off"), "forward"),
    "output": Setting(checks.one_of("auto", "inherit", "forward", "keep"), "auto"),
    "output_prefix": Setting(_prefix, ""),
    "context": Setting(_context, ()),
    "log_file": Setting(_log_file),
}

OF_INNER_MAPS = ("logs", "output", "output_prefix", "context", "show_items", "inner_threads", "idle_timeout")
"""What a map passes on to those inside of it by any rule."""
OF_THE_OUTERMOST = ("progress", "seed", "log_file", "force_backend", "profile", "config")
"""What it does not pass on by the rule ``inherit``, which passes on the rest."""


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
    """Seconds after which workers without work end; 60 by default."""
    show_items: bool | Literal["on", "off"] | None
    """Whether an item's ``repr`` may stand in messages: not where items are secret."""
    seed: int | None
    """Gives each item random numbers of its own: as :func:`pmap` takes it."""
    logs: Literal["forward", "off"] | None
    """Whether what items log and warn of reaches the caller's logging (it does by default)."""
    output: Literal["auto", "inherit", "forward", "keep"] | None
    """What becomes of what items print. ``"inherit"``: it goes where the worker's output goes. ``"forward"``: the caller
    prints it, whole lines at a time, above the bar. ``"keep"``: it is in ``Failure.output``. ``"auto"``: ``"forward"`` for
    a map that shows a bar, and while another one does; else ``"inherit"`` (the default)."""
    output_prefix: str | None
    """Stands before each line that is forwarded, with ``{item}``, ``{backend}``, ``{worker}``, ``{host}`` filled in."""
    context: Sequence[str] | str | None
    """Context variables whose values items see as their caller does, each as ``"module:variable"``."""
    log_file: str | os.PathLike[str] | Mapping[str, Any] | None
    """A file to which all that is logged goes, from the first map on, in all processes: its name, or what
    :func:`anymap.logs.rotating_file` takes."""
    profile: str | None
    """The profile of the configuration file that holds."""
    backends: Mapping[str, Mapping[str, Any]] | None
    """Options of backends, by name: ``{"dask": {"address": "tcp://..."}}``. Each is for that backend alone."""


def check(name: str, where: str, value: Any) -> Any:
    """Return the value of a setting, or raise a ``ConfigError`` that says what it may be."""
    return SETTINGS[name].check(where, value)
