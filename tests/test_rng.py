"""Seeds: each item has random numbers of its own, and they are the same wherever it runs."""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anymap import ConfigError, pmap, rng

if TYPE_CHECKING:
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
