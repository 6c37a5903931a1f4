"""Seeds: each item has random numbers of its own, and they are the same wherever it runs."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest

from anymap import ConfigError, pmap, rng
from anymap.backends import Processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anymap.backends.base import Backend


def draw(_: object) -> int:
    return int(rng().integers(2**60))


def children(seed: int, count: int) -> list[int]:
    """Return what numpy's own children of a seed give."""
    sequences = np.random.SeedSequence(seed).spawn(count)
    return [int(np.random.default_rng(sequence).integers(2**60)) for sequence in sequences]


@pytest.mark.parametrize("options", [{}, {"workers": 1}, {"workers": 3, "chunksize": 7}], ids=str)
def test_an_items_stream_is_the_same_on_any_backend_however_the_work_is_cut(
    backend: Backend, options: dict[str, Any]
) -> None:
    assert pmap(draw, range(20), seed=42, backend=backend, **options) == children(42, 20)


def test_a_retry_sees_the_same_numbers_again(backend: Backend, tmp_path: Path) -> None:
    def fails_once(item: int) -> int:
        number = draw(item)
        if item == 2 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").write_text(str(number))
            raise OSError
        return number

    results = pmap(fails_once, range(4), seed=7, backend=backend, workers=2, chunksize=4, retries=1)
    assert results == children(7, 4)
    assert (tmp_path / "failed").read_text() == str(results[2])


@pytest.mark.processes
def test_an_item_whose_worker_died_sees_the_same_numbers_again(tmp_path: Path) -> None:
    def dies_once(item: int) -> int:
        number = draw(item)
        if item == 2 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    assert pmap(dies_once, range(4), seed=7, workers=2, retries=1) == children(7, 4)


def test_an_item_goes_on_with_its_stream_at_each_call(backend: Backend) -> None:
    pairs = pmap(lambda item: (draw(item), draw(item)), range(3), seed=1, backend=backend, workers=2)
    assert [first for first, _ in pairs] == children(1, 3)
    assert len({number for pair in pairs for number in pair}) == 6


def test_without_a_seed_no_two_runs_are_alike(backend: Backend) -> None:
    runs = [pmap(draw, range(3), backend=backend, workers=2) for _ in range(2)]
    assert len({number for run in runs for number in run}) == 6


def test_outside_of_a_map_and_in_a_map_inside_without_a_seed_nobody_seeds() -> None:
    def inner(_: int) -> list[int]:
        return pmap(draw, range(2), backend="threads")

    assert draw(0) != draw(0)
    numbers = [number for pair in pmap(inner, range(2), seed=1, backend="serial") for number in pair]
    assert not {*numbers} & {*children(1, 2)}
    assert len({*numbers}) == 4


def test_without_numpy_the_streams_are_those_of_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "numpy.random", None
    )  # to import it raises ModuleNotFoundError, as if it were not there
    monkeypatch.setitem(sys.modules, "numpy", None)
    runs = [pmap(lambda _: rng().random(), range(3), seed=5, backend=name) for name in ("serial", "threads")]
    assert runs[0] == runs[1]
    assert len({*runs[0]}) == 3
    assert isinstance(rng(), random.Random)


@pytest.mark.parametrize("seed", [-1, 1.5, "x", True + 0.5])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(ConfigError, match="seed"):
        pmap(draw, [], seed=seed)


def test_the_seed_may_be_numpys() -> None:
    assert pmap(draw, range(3), seed=np.int64(42), backend="serial") == children(42, 3)


# --- the generators that all code of a process shares -------------------------------------------------------------------

rand = np.random.rand

FORKING = [
    pytest.param(Processes(start_method="fork"), id="forks", marks=pytest.mark.processes),
    pytest.param("pathos", id="pathos", marks=pytest.mark.pathos),
]
IN_PROCESSES = [
    *FORKING,
    pytest.param("processes", id="processes", marks=pytest.mark.processes),
    pytest.param("joblib", id="joblib", marks=pytest.mark.joblib),
    pytest.param("dask", id="dask", marks=[pytest.mark.dask, pytest.mark.full]),
]


def draws_of_workers(func: Callable[[int], Any], backend: Any) -> list[Any]:
    """Return the first number that each of two workers draws."""
    found = pmap(lambda item: (os.getpid(), func(item)), range(24), backend=backend, workers=2, chunksize=1)
    firsts: dict[int, Any] = {}
    for pid, number in found:
        firsts.setdefault(pid, number)
    assert len(found) == len({number for _, number in found}), found
    return list(firsts.values())


@pytest.mark.parametrize("backend", FORKING)
def test_forks_draw_different_numbers(backend: Any) -> None:
    rand()
    random.random()
    draws_of_workers(lambda _: float(rand()), backend)
    draws_of_workers(lambda _: random.random(), backend)


def test_forks_of_joblib_draw_different_numbers() -> None:
    rand()
    with joblib.parallel_config("multiprocessing"):
        draws_of_workers(lambda _: float(rand()), "joblib")


@pytest.mark.parametrize("name", ["torch", "sympy.core.random"])
def test_other_libraries_that_are_loaded_are_seeded_anew_in_forks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType(name)
    library.seed = lambda: setattr(library, "state", os.getpid())  # type: ignore[attr-defined]
    library.state = 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, library)
    backend = Processes(start_method="fork")
    states = pmap(lambda _: (os.getpid(), sys.modules[name].state), range(4), backend=backend, workers=2)
    assert all(state == pid for pid, state in states)
    assert library.state == 0


def test_the_kind_of_numpys_generator_stays() -> None:
    former = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(1))
    try:
        kinds = pmap(
            lambda _: type(np.random.get_bit_generator()).__name__,
            range(2),
            backend=Processes(start_method="fork"),
            workers=1,
        )
        assert kinds == ["PCG64"] * 2
    finally:
        np.random.set_bit_generator(former)


def test_a_lock_of_numpys_that_another_thread_holds_is_no_trouble() -> None:
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with np.random.mtrand._rand._bit_generator.lock:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    try:
        assert pmap(abs, [-1], backend=Processes(start_method="fork"), workers=1) == [1]
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("backend", IN_PROCESSES)
@pytest.mark.parametrize(("func", "argument"), [(random.getrandbits, 64), (np.random.rand, 1)], ids=["random", "numpy"])
def test_a_function_of_the_shared_generator_draws_from_the_workers_own(backend: Any, func: Any, argument: int) -> None:
    func(argument)
    found = pmap(func, [argument] * 20, backend=backend, workers=2, chunksize=1)
    assert len({float(number) for number in map(np.ravel, found) for number in number}) == 20


@pytest.mark.parametrize("backend", IN_PROCESSES)
def test_a_generator_of_the_callers_own_is_copied_as_it_is(backend: Any) -> None:
    own, numpys = random.Random(5), np.random.default_rng(6)
    expected = random.Random(5).random(), np.random.default_rng(6).random()
    assert pmap(lambda _: (own.random(), numpys.random()), [0], backend=backend, workers=1) == [expected]
