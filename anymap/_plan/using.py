"""Settings from code: ``with anymap.using(...)`` for a block, ``anymap.configure(...)`` for the process."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, cast

from anymap._config import checks, layers, settings
from anymap._config.scope import Scope, scope
from anymap._config.values import Layer, Value, block_progress
from anymap._errors import ConfigError, UnknownBackend
from anymap.backends import _registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token

    from anymap._config.settings import Settings
    from anymap.progress._block import BlockProgress

P = ParamSpec("P")
R = TypeVar("R")


class using:  # noqa: N801 - it is used as a function
    """Settings for a block of code, or for each call of a function.

    They hold for every map that the block calls, in whatever package, in this thread or asyncio task and
    in no other. They end with the block.

    >>> import anymap
    >>> with anymap.using(backend="threads", workers=2):
    ...     anymap.pmap(abs, [-1, 2])
    [1, 2]

    >>> @anymap.using(backend="serial")
    ... def total(numbers):
    ...     return sum(anymap.pmap(abs, numbers))
    >>> total([-1, 2])
    3

    A ``progress`` that is given here shows one bar over all maps of the block. What is told of single maps, as to a file of
    events or a function of yours, is told of each as ever.

    Args:
        desc: What the bar of ``progress`` calls the block.
        total: How many items all maps of the block have together, where that is known.
        **given: The settings, by name, as :class:`anymap.Settings` lists them.

    Raises:
        ConfigError: A setting has a wrong name, type or value.
    """

    def __init__(self, *, desc: str | None = None, total: int | None = None, **given: Unpack[Settings]) -> None:
        self._layer = _layer("using()", given)
        self._make_progress = functools.partial(block_progress, given.get("progress"), desc, total, "using()")
        self._make_progress()
        self._entered: list[tuple[Token[Scope], BlockProgress | None]] = []

    def __enter__(self) -> Self:
        here, layer, shown = scope.get(), self._layer, self._make_progress()
        if shown is not None:
            layer = {**layer, "progress": layer["progress"]._replace(value=shown)}
        self._entered.append((scope.set(here._replace(using=(*here.using, layer))), shown))
        return self

    def __exit__(self, *_: object) -> None:
        token, shown = self._entered.pop()
        scope.reset(token)
        if shown is not None:
            shown.close()

    def __repr__(self) -> str:
        return f"using({', '.join(f'{name}={value!r}' for name, (value, _) in self._layer.items())})"

    def __call__(self, func: Callable[P, R]) -> Callable[P, R]:
        """Have the settings hold for each call of ``func``, which may be a coroutine function."""
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(
                f"using() cannot decorate the generator {func.__qualname__!r}: put `with using(...)` inside of it"
            )
        if inspect.iscoroutinefunction(func):

            @functools.wraps(func)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self._anew():
                    return await func(*args, **kwargs)

            return cast("Callable[P, R]", awaited)

        @functools.wraps(func)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._anew():
                return func(*args, **kwargs)

        return called

    def _anew(self) -> using:
        # Several calls may run at once: each has a token of its own.
        other = using()
        other._layer, other._make_progress = self._layer, self._make_progress
        return other


def configure(**given: Unpack[Settings]) -> None:
    """Set what holds for all maps of this process, below ``using`` and above the environment.

    Each call adds to the ones before. A setting that is ``None`` is taken back.

    >>> import anymap
    >>> anymap.configure(workers=2)
    >>> anymap.configure(workers=None)

    Args:
        **given: The settings, by name, as :class:`anymap.Settings` lists them.

    Raises:
        ConfigError: A setting has a wrong name, type or value.
    """
    said = _layer("configure()", given)
    taken_back = [name for name, value in given.items() if value is None]
    kept = {name: value for name, value in layers.configured.items() if name.partition(".")[0] not in taken_back}
    layers.configured = kept | said


def _layer(call: str, given: Mapping[str, Any]) -> Layer:
    origin = f"{call} at {_callers_place()}"
    said: Layer = {}
    for name, value in given.items():
        if value is None:
            continue
        if name == "backends":
            said |= _options(call, value, origin)
        elif name == "profile":
            said[name] = Value(checks.text(f"{call}: profile", value), origin)
        elif name == "backend":
            _check_backend(call, value)
            said[name] = Value(value, origin)
        elif name == "progress":
            _check_progress(call, value)
            said[name] = Value(value, origin)
        else:
            checks.name(call, name, [*settings.SETTINGS, "backends", "profile"])
            said[name] = Value(settings.check(name, f"{call}: {name}", value), origin)
    return said


def _check_progress(call: str, value: Any) -> None:
    from anymap.progress._resolve import check  # noqa: PLC0415 - not where nothing is set

    try:
        check(value)
    except ConfigError as exc:
        raise ConfigError(f"{call}: {exc}") from None


def _check_backend(call: str, value: Any) -> None:
    """Raise a ``ConfigError`` for what can be no backend; whether it can be used is found out by the map."""
    if isinstance(value, str):
        if value not in (known := _registry.known_names()):
            raise ConfigError(f"{call}: {UnknownBackend(value, known)}")
    elif isinstance(value, int | float | bytes | list | tuple | set | dict):
        raise ConfigError(f"{call}: backend must be a backend's name or an instance of one, not {value!r}")


def _options(call: str, given: Any, origin: str) -> Layer:
    said: Layer = {}
    try:
        for backend, options in given.items():
            said |= {f"backends.{backend}.{option}": Value(value, origin) for option, value in options.items()}
    except AttributeError:
        message = f"{call}: backends must be a mapping of backends' names to mappings of their options, not {given!r}"
        raise ConfigError(message) from None
    return said


def _callers_place() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("anymap."):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}, line {frame.f_lineno}"
