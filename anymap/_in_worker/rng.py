"""Random numbers of an item's own: the same wherever, whenever and however often it runs."""

from __future__ import annotations

import random
from typing import Any

from anymap._worker.context import task_context


def rng() -> Any:
    """Return the random stream of the item that this code runs for.

    With ``pmap(..., seed=42)`` each item has a stream of its own, independent of all others. It depends on the seed and
    on the item's index in the input alone: not on the backend, the number of workers, the chunks, or which attempt this
    is. All calls in one item return the same generator.

    Where numpy can be imported that is a :class:`numpy.random.Generator`, seeded as the child with that index of
    ``SeedSequence(seed)``; else a :class:`random.Random`. They do not give the same numbers.

    In a map without a seed, outside of any map, and in threads that the function starts itself, each call returns a new
    generator without a seed.

    >>> from anymap import pmap, rng
    >>> def dice(_):
    ...     return rng().random()
    >>> pmap(dice, range(3), seed=42, backend="serial") == pmap(dice, range(3), seed=42, backend="threads")
    True
    """
    place = task_context.get()
    environment = place.spec.environment if place is not None else None
    item = place.item() if place is not None else None
    if place is None or environment is None or environment.seed is None or item is None:
        return _unseeded()
    if place.stream is None or place.stream[0] != item:
        place.stream = item, _seeded(environment.seed, item)
    return place.stream[1]


def _seeded(seed: int, item: int) -> Any:
    try:
        from numpy.random import SeedSequence, default_rng  # noqa: PLC0415 - it may not be there
    except ModuleNotFoundError as exc:
        _check_that_it_is_numpy(exc)
        return random.Random(f"{seed} {item}")  # noqa: S311 - chance, not secrets
    return default_rng(SeedSequence(seed, spawn_key=(item,)))


def _unseeded() -> Any:
    try:
        from numpy.random import default_rng  # noqa: PLC0415 - as in _seeded
    except ModuleNotFoundError as exc:
        _check_that_it_is_numpy(exc)
        return random.Random()  # noqa: S311 - chance, not secrets
    return default_rng()


def _check_that_it_is_numpy(exc: ModuleNotFoundError) -> None:
    """Raise again what says that something else is missing."""
    if (exc.name or "").partition(".")[0] != "numpy":
        raise exc
