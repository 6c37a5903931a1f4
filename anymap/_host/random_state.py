"""The generators of random numbers that all code of a process shares."""

from __future__ import annotations

from anymap._host import forks, loaded

HOMES = ("random", "numpy.random.mtrand")
"""The modules that have such a generator as an object, which the functions of ``random`` and ``numpy.random`` are methods of."""
_SEEDS = ("torch", "sympy.core.random")
"""Libraries whose own ``seed()`` has theirs begin anew."""

_is_fork = False
"""The generators are still as they were in the parent: all forks would draw the same numbers."""


def _note_fork() -> None:
    global _is_fork  # noqa: PLW0603 - a fact about the process
    _is_fork = True


forks.in_child(_note_fork)


def reseed() -> None:
    """In a fork that becomes a worker: have the generators begin anew, each with a seed of its own.

    ``random`` does so by itself in every fork.
    """
    global _is_fork  # noqa: PLW0603 - as above
    if not _is_fork:
        return
    _is_fork = False
    numpy = loaded.variables("numpy.random")
    if "set_bit_generator" in numpy:
        # Not by its seed(), which takes a lock that another thread may have held when the process was forked.
        numpy["set_bit_generator"](type(numpy["get_bit_generator"]())())
    for name in _SEEDS:
        if (seed := loaded.attribute(name, "seed")) is not None:
            seed()
