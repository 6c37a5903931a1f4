"""From arguments and settings to one plan. Checks everything, starts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anymap._config import checks, layers, settings
from anymap._engine.call_checks import check_call
from anymap._engine.plan import Plan, Retry
from anymap._errors import ConfigError
from anymap._plan import choice
from anymap._propagate import replay
from anymap._propagate.environment_settings import EnvironmentSettings
from anymap.progress import resolve
from anymap.progress._block import BlockProgress
from anymap.progress._combined import sinks_of_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._config.layers import Config
    from anymap.progress import Sink

_CONTAINERS: tuple[type, ...] = (
    list, tuple, range, str, bytes, bytearray, dict, set, frozenset, type({}.keys()), type({}.values()), type({}.items())
)  # fmt: skip
_check_on_error = checks.one_of("raise", "return", "skip", "group")


def make_plan(func: Callable[..., Any], iterables: tuple[Iterable[Any], ...], **options: Any) -> Plan:
    """Check ``pmap``'s arguments and fill in what they leave open."""
    check_call(func, iterables, "pmap")
    config = layers.current()
    _check_log_file(config)
    sinks = tuple(sinks_for(config, options["progress"]))
    environment_settings = replay.settled(EnvironmentSettings.of(config), sinks)
    backend, _ = choice.choose(config, options["backend"], options["prefer"], options["require"])
    plan = Plan(
        func=func,
        star=len(iterables) > 1,
        prompt=all(map(_is_container, iterables)),
        backend=backend,
        workers=choice.workers(config, options["workers"], backend),
        ordered=checks.flag("ordered", options["ordered"]),
        lazy=checks.flag("lazy", options["lazy"]),
        on_error=_check_on_error("on_error", options["on_error"]),
        max_failures=_asked(checks.max_failures, "max_failures", options),
        retry=_retry(_asked_or_set(config, "retries", options)),
        timeout=_asked_or_set(config, "timeout", options),
        chunksize=_asked_or_set(config, "chunksize", options),
        window=_asked_or_set(config, "window", options),
        total=_total(options["total"], iterables),
        desc=checks.text("desc", options["desc"]),
        sinks=sinks,
        seed=_asked_or_set(config, "seed", options),
        listeners=replay.listeners(backend.name, environment_settings),
        config=config,
        environment_settings=environment_settings,
    )
    _check_max_failures(plan)
    return plan


def _asked(check: Callable[[str, Any], Any], name: str, options: dict[str, Any]) -> Any:
    return None if options[name] is None else check(name, options[name])


def _asked_or_set(config: Config, name: str, options: dict[str, Any]) -> Any:
    return config.value(name) if options[name] is None else settings.check(name, name, options[name])


def _retry(value: Any) -> Retry:
    return value if isinstance(value, Retry) else Retry(value)


def sinks_for(config: Config, asked: Any) -> list[Sink]:
    """Return what shows one more map."""
    outermost = config.inherited is None
    if isinstance(asked, BlockProgress):
        return sinks_of_map(asked)
    if asked is not None or (said := config.said("progress")) is None:
        return resolve(asked, outermost=outermost)
    try:
        return sinks_of_map(said.value) if isinstance(said.value, BlockProgress) else resolve(said.value)
    except ConfigError as exc:
        raise ConfigError(f"{said.origin}: {exc}") from None


def _check_log_file(config: Config) -> None:
    said = config.said("log_file")
    if said is None:
        return
    from anymap import logs  # noqa: PLC0415 - only wanted by few

    try:
        logs._check(**{"max_bytes": 0, "backups": 10, "when": None, "encoding": "utf-8"} | said.value)
    except ConfigError as exc:
        raise ConfigError(f"{said.origin}: log_file: {exc}") from None


def _is_container(iterable: Any) -> bool:
    kind = type(iterable)
    return kind in _CONTAINERS or (kind.__module__, kind.__qualname__) == ("numpy", "ndarray")


def _total(asked: Any, iterables: tuple[Any, ...]) -> int | None:
    if asked is not None:
        return checks.whole("total", asked)
    try:
        return min(len(iterable) for iterable in iterables)
    except (TypeError, OverflowError):  # a range may have more numbers than any list has room for
        return None


def _check_max_failures(plan: Plan) -> None:
    if plan.max_failures is not None and plan.on_error == "raise":
        raise ConfigError(
            "max_failures has no meaning with on_error='raise', which ends the map at the first failure: "
            "add on_error='return', 'skip' or 'group'"
        )
