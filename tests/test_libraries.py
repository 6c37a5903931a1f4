"""Libraries that take a pool, a map or an executor: the same numbers as serial, on every backend."""

from __future__ import annotations

from concurrent.futures import as_completed
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import emcee
import numpy as np
import pytest
from scipy import integrate, optimize

from anymap import Executor, Pool, pmap

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.backends import Backend

pytestmark = pytest.mark.full

BOUNDS = [(-2.0, 2.0), (-2.0, 2.0)]
RIDGE = 100.0
"""Of this module, which no worker can import."""


def valley(x: Any) -> float:
    return float((1 - x[0]) ** 2 + RIDGE * (x[1] - x[0] ** 2) ** 2)


def log_probability(x: Any, centre: float) -> float:
    return -float(np.sum((x - centre) ** 2)) / 2


def wave(x: float) -> Any:
    return np.array([np.sin(x), np.cos(x)])


# --- scipy: workers= -----------------------------------------------------------------------------------------------------


def evolve(workers: Any) -> Any:
    found = optimize.differential_evolution(
        valley, BOUNDS, rng=1, maxiter=4, popsize=4, polish=False, updating="deferred", workers=workers
    )
    return found.x, found.fun, found.nfev


def search(workers: Any) -> Any:
    return optimize.brute(valley, BOUNDS, Ns=5, finish=None, full_output=True, workers=workers)


def integral(workers: Any) -> Any:
    return integrate.quad_vec(wave, 0, 10, workers=workers)


@pytest.mark.parametrize("use", [evolve, search, integral])
def test_scipy_takes_pmap_and_the_map_of_a_pool(use: Callable[[Any], Any], backend: Backend) -> None:
    expected = use(1)
    assert_same(use(partial(pmap, backend=backend, workers=2)), expected)
    with Pool(2, backend=backend) as pool:
        assert_same(use(pool.map), expected)


def test_scipy_takes_pmap_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_BACKEND", "threads")
    assert_same(search(pmap), search(1))


def assert_same(got: Any, expected: Any) -> None:
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# --- emcee: pool= --------------------------------------------------------------------------------------------------------


def sample(pool: Any) -> Any:
    np.random.seed(1)  # noqa: NPY002 - emcee draws from there
    sampler = emcee.EnsembleSampler(8, 2, log_probability, args=[0.5], pool=pool)
    sampler.run_mcmc(np.random.randn(8, 2), 5)  # noqa: NPY002
    return sampler.get_chain()


def test_emcee_takes_a_pool(backend: Backend) -> None:
    with Pool(2, backend=backend) as pool:
        np.testing.assert_array_equal(sample(pool), sample(None))


# --- the shapes that others know ------------------------------------------------------------------------------------------


def test_code_for_a_pool_chosen_by_its_caller_takes_ours(backend: Backend) -> None:
    # As it is written for schwimmbad: one function from a list of tasks, whatever the pool is.
    def main(pool: Any) -> float:
        tasks = list(zip(np.linspace(-1, 1, 9), range(9), strict=True))
        return float(sum(pool.map(lambda task: task[0] ** 2 * task[1], tasks)))

    with Pool(2, backend=backend) as pool:
        assert main(pool) == pytest.approx(15.0)


def test_dask_takes_an_executor_for_a_scheduler(backend: Backend) -> None:
    total = sum(dask.delayed(abs)(-x) for x in range(10))
    with Executor(2, backend=backend) as executor:
        assert dask.compute(total, scheduler=executor) == (45,)


def test_code_for_an_executor_takes_ours(backend: Backend) -> None:
    def minima(executor: Any) -> list[float]:
        starts = [np.array([x, 0.0]) for x in (-1, 0, 2)]
        futures = {executor.submit(optimize.minimize, valley, start, options={"maxiter": 2}): start for start in starts}
        return sorted(future.result().fun for future in as_completed(futures))

    with Executor(2, backend=backend) as executor, Executor(backend="serial") as serial:
        assert minima(executor) == minima(serial)
