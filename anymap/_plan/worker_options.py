"""The arguments that say what the workers of a ``Pool`` and of an ``Executor`` are like."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anymap._config import checks
from anymap._errors import ConfigError, UnsupportedOption
from anymap._worker import initializer as _initializer
from anymap.backends import _registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._engine.plan import Plan
    from anymap._worker.initializer import Initializer


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What each map of a pool, or of an executor, passes on to its workers."""

    backend: Any
    workers: Any
    initializer: Initializer | None
    max_tasks: int | None

    def prepared(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``func``, to be called in workers that the initializer has prepared."""
        return func if self.initializer is None else self.initializer.before(func)

    def limit_tasks(self, plan: Plan) -> None:
        """Have each worker of a map replaced after so many items.

        Raises:
            UnsupportedOption: The backend replaces no workers.
        """
        backend = plan.backend
        if self.max_tasks is None:
            return
        if hasattr(backend, "max_tasks_per_worker"):
            backend.max_tasks_per_worker = self.max_tasks
        elif backend.traits.inline:
            warnings.warn(
                f"backend {backend.name!r} has no workers to replace: maxtasksperchild={self.max_tasks} has no effect",
                stacklevel=4,
            )
        else:
            raise UnsupportedOption(
                f"backend {backend.name!r} does not replace workers after a number of items, so "
                "maxtasksperchild= cannot be kept; 'processes' can"
            )


def worker_options(
    backend: Any,
    initializer: Callable[..., object] | None,
    initargs: Iterable[Any],
    max_tasks: int | None,
    **workers: Any,
) -> WorkerOptions:
    """Check the arguments; ``workers`` are all names of the same one, with their values."""
    return WorkerOptions(
        backend,
        _number_of_workers(workers),
        _initializer.initializer(initializer, initargs),
        None if max_tasks is None else checks.count("maxtasksperchild", max_tasks),
    )


def _number_of_workers(given: dict[str, Any]) -> Any:
    said = {name: value for name, value in given.items() if value is not None}
    if len(said) > 1:
        raise ConfigError(f"{' and '.join(said)} are two names of the same argument: give one of them")
    for name, value in said.items():
        if _is_a_backend(value):
            raise ConfigError(f"{name} must be a number, not {value!r}; give a backend by keyword: backend={value!r}")
    return next(iter(said.values()), None)


def _is_a_backend(value: Any) -> bool:
    if isinstance(value, str):
        return value in _registry.known_names()
    return not (isinstance(value, float) or hasattr(value, "__index__"))
