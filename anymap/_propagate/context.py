"""Context variables of the caller's, in the worker: each item sees them as they were where the map was called."""

from __future__ import annotations

import importlib
import pickle
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from anymap._errors import ConfigError, NotPicklable
from anymap._host import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Values = list[tuple[str, Any]]


def values(names: Iterable[str]) -> Values:
    """Return the values of variables that are named ``module:variable``; those that have none are left out."""
    nothing = object()
    found = [(name, _variable(name).get(nothing)) for name in names]
    return [(name, value) for name, value in found if value is not nothing]


def pack(travelling: Values) -> bytes:
    from anymap._serialize import exception_parts  # noqa: PLC0415 - only wanted by few

    for name, value in travelling:
        try:
            exception_parts.dumps(value)
        except Exception as exc:
            message = f"the context variable {name!r} cannot be sent to other processes: {type(exc).__name__}: {guarded.text(exc)}"
            raise NotPicklable(message) from exc
    return exception_parts.dumps(travelling)


def around(func: Callable[..., Any], travelling: Values | bytes) -> Callable[..., Any]:
    """Return ``func`` so that each call of it sees these values, whatever the calls before it have set."""
    given: Values = pickle.loads(travelling) if isinstance(travelling, bytes) else travelling
    variables = [(_variable(name), value) for name, value in given]

    def in_context(*row: Any) -> Any:
        tokens = [(variable, variable.set(value)) for variable, value in variables]
        try:
            return func(*row)
        finally:
            for variable, token in tokens:
                variable.reset(token)

    return in_context


def _variable(name: str) -> ContextVar[Any]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"context={name!r}: there is no such variable: {exc}") from exc
    if not isinstance(found, ContextVar):
        raise ConfigError(f"context={name!r} is no contextvars.ContextVar but of type {type(found).__name__!r}")
    return found
