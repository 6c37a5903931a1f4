"""What newcomers write is answered with what they need."""

from __future__ import annotations

import bdb
import functools
import sys
import types
from typing import TYPE_CHECKING, Any

import joblib
import pytest
from distributed import LocalCluster

import anymap
from anymap import ConfigError, Executor, Pool, UnknownBackend, pmap

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.backends import Backend


@pytest.mark.parametrize(
    ("others", "ours"),
    [
        ("n_jobs", "workers"),
        ("num_cpus", "workers"),
        ("max_workers", "workers"),
        ("processes", "workers"),
        ("jobs", "workers"),
        ("ncpus", "workers"),
        ("njobs", "workers"),
        ("chunk_size", "chunksize"),
        ("batch_size", "chunksize"),
        ("progress_bar", "progress"),
        ("tqdm", "progress"),
        ("verbose", "progress"),
        ("return_exceptions", "on_error"),
        ("timeuot", "timeout"),
    ],
)
def test_a_keyword_of_another_library_is_answered_with_ours(others: str, ours: str) -> None:
    calls: list[Callable[..., Any]] = [functools.partial(pmap, abs, [1])]
    if ours in {"workers", "progress"} and others not in {"processes", "max_workers"}:
        calls += [Pool, Executor]
    for call in calls:
        with pytest.raises(TypeError, match=rf"got an unexpected keyword argument '{others}'. Did you mean '{ours}'\?"):
            call(**{others: 2})
    if ours != "on_error":
        with pytest.raises(ConfigError, match=rf"there is no setting '{others}'. Did you mean '{ours}'\?"):
            anymap.using(**{others: 2})  # type: ignore[misc]


def test_arguments_for_the_function_are_sent_to_partial() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'colour'.*functools.partial"):
        pmap(abs, [1], colour="red")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("loky", "'joblib', which runs on loky"),
        ("multiprocessing", "'processes'"),
        ("Threading", "'threads'"),
        ("distributed", "'dask'"),
        ("sequential", "'serial'"),
        ("thread", "'threads'"),
    ],
)
def test_an_engine_that_is_no_name_of_a_backend_is_answered_with_one(name: str, instead: str) -> None:
    with pytest.raises(UnknownBackend) as caught:
        pmap(abs, [1], backend=name)
    assert f"Did you mean {instead}" in str(caught.value)


def of_package(name: str) -> object:
    kind = type("Thing", (), {"submit": lambda *_: None})
    kind.__module__ = f"{name}.somewhere"
    return kind()


def test_an_object_that_is_no_engine_is_answered_with_what_is() -> None:
    for given, instead in {
        of_package("parsl"): "ParslPoolExecutor",
        of_package("submitit"): "dask_jobqueue",
        of_package("ipyparallel"): r"client\.executor\(\)",
        of_package("own"): "derive it from concurrent.futures.Executor",
        LocalCluster: "cluster.get_client",
        joblib.Parallel(): "'joblib', within",
        joblib: "",
        types.ModuleType("multiprocessing"): "'processes'",
    }.items():
        with pytest.raises(ConfigError, match=rf"backend must be a backend's name .*{instead}"):
            pmap(abs, [1], backend=given)  # type: ignore[call-overload]


def add(x: int, y: int) -> int:
    return x + y


@pytest.mark.full
def test_rows_for_a_function_of_several_arguments_are_answered_with_zip(backend: Backend) -> None:
    rows = [(1, 2), (3, 4)]
    with pytest.raises(TypeError, match="missing 1 required positional argument") as caught:
        pmap(add, rows, backend=backend, workers=2)
    assert any("a tuple of 2: pmap(func, *zip(*rows))" in note for note in caught.value.__notes__)
    assert pmap(add, *zip(*rows, strict=True), backend=backend, workers=2) == [3, 7]


def test_other_type_errors_get_no_such_answer() -> None:
    def fail(row: tuple[int, ...]) -> None:
        raise TypeError("no")

    for func, row in ((fail, (1,)), (len, 3), (add, (1, 2, 3))):
        with pytest.raises(TypeError) as caught:
            pmap(func, [row], backend="serial")  # type: ignore[arg-type]
        assert not any("zip" in note for note in caught.value.__notes__)


def test_a_coroutine_function_is_refused_before_anything_runs() -> None:
    async def fetch(url: str) -> str:
        return url

    class Fetch:
        async def __call__(self, url: str) -> str:
            return url

    for func in (fetch, functools.partial(fetch), Fetch(), Fetch().__call__):
        with pytest.raises(TypeError, match=r"cannot await, and .* is a coroutine function.*asyncio.run"):
            pmap(func, ["a"])
    with Executor(1, backend="threads") as executor, pytest.raises(TypeError, match=r"Executor\.map cannot await"):
        executor.map(fetch, ["a"])
    assert pmap(lambda x: x, ["a"], backend="serial") == ["a"]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_data_frame_is_refused_and_told_how_its_rows_are_had(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class DataFrame(dict[str, list[int]]):
        pass

    module = types.ModuleType(library)
    module.DataFrame = DataFrame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, library, module)
    with pytest.raises(
        TypeError, match=rf"a data frame of {library}, which does not iterate over its rows: give df\.iter"
    ):
        pmap(len, DataFrame(a=[1]), backend="serial")


@pytest.mark.full
@pytest.mark.processes
def test_a_breakpoint_in_a_worker_is_answered_with_serial() -> None:
    def debug(x: int) -> int:
        breakpoint()  # noqa: T100
        return x

    with pytest.raises(bdb.BdbQuit) as caught:
        pmap(debug, [1], backend="processes", workers=1)
    assert any("ANYMAP_FORCE_BACKEND=serial" in note for note in caught.value.__notes__)
