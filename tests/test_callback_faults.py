"""A fault of anymap's own, on a thread that has no caller, ends the map: nothing else would end its tasks."""

from __future__ import annotations

import concurrent.futures
import multiprocessing.pool
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import pmap
from anymap._engine.dispatch import Dispatcher
from anymap._host import framing
from anymap.backends import Processes, TaskCodec
from anymap.backends._joblib import loky
from anymap.backends._processes import kept, pool
from anymap.backends._shared.external import ExternalEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.backends.base import Backend


class Fault(BaseException):
    """No error that anything expects."""


def raise_fault(*_: object, **__: object) -> Any:
    raise Fault


@pytest.fixture(autouse=True)
def reported_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)


@pytest.mark.parametrize("method", ["_enter", "_enter_answer", "_release"])
def test_one_in_the_engines_callback_ends_the_map(
    backend: Backend, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend.traits.inline:
        pytest.skip("the engine calls the function itself, and has no callbacks")
    monkeypatch.setattr(Dispatcher, method, raise_fault)
    with pytest.raises(Fault):
        pmap(abs, range(4), backend=backend, workers=2)


def test_one_in_the_supervisor_ends_the_map(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend.traits.inline:
        pytest.skip("its items do not wait for the supervisor")
    over = threading.Event()
    monkeypatch.setattr(Dispatcher, "marks", raise_fault_once(over))
    with pytest.raises(Fault):
        pmap(wait_for_long, range(2), backend=backend, workers=2, timeout=60)
    assert over.is_set()


def raise_fault_once(raised: threading.Event) -> Callable[[Dispatcher], dict[Any, Any]]:
    def marks(self: Dispatcher) -> dict[Any, Any]:
        if not raised.is_set():
            raised.set()
            raise Fault
        return real(self)

    real = Dispatcher.marks
    return marks


def wait_for_long(_: int) -> None:
    import time

    # Until the map is over: then its worker is ended, or the item is the last that its thread runs.
    time.sleep(1)


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_an_answer_that_cannot_be_loaded_ends_its_map_and_not_the_pool(
    start_method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pool, "_loaded", lambda _: Fault())
        with pytest.raises(Fault):
            pmap(abs, range(4), backend=Processes(start_method=start_method), workers=2)
    pools = set(kept._pools.values())
    assert pmap(abs, range(4), backend="processes", workers=2) == [0, 1, 2, 3]
    assert start_method == "fork" or set(kept._pools.values()) == pools


def test_so_does_one_that_is_no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    real = framing.receive
    with monkeypatch.context() as patch:
        patch.setattr(framing, "receive", lambda fd: real(fd) and bytearray(b"no pickle"))
        with pytest.raises(pickle.UnpicklingError):
            pmap(abs, range(4), backend="processes", workers=2)


@pytest.mark.dask
def test_one_in_dasks_event_loop_ends_the_map(dask_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskCodec, "decode", raise_fault)
    with pytest.raises(Fault):
        pmap(abs, range(4), backend=anymap.backends.Dask(scheduler_file=dask_cluster), workers=2)


@pytest.mark.joblib
def test_one_where_loky_calls_back_ends_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loky, "only", raise_fault)
    with pytest.raises(Fault):
        pmap(abs, range(4), backend="joblib", workers=2)


def end_at_once(*_: object) -> None:
    """Be the thread of a pool that reads answers."""


@pytest.mark.pathos
def test_a_pathos_pool_whose_thread_has_ended_ends_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocess.pool import Pool

    monkeypatch.setattr(Pool, "_handle_results", end_at_once)
    with pytest.raises(RuntimeError, match="has ended by an error"):
        pmap(abs, range(4), backend="pathos", workers=2)


@pytest.mark.joblib
def test_so_does_one_of_joblibs(monkeypatch: pytest.MonkeyPatch) -> None:
    import joblib

    monkeypatch.setattr(multiprocessing.pool.Pool, "_handle_results", end_at_once)
    with joblib.parallel_config("multiprocessing"), pytest.raises(RuntimeError, match="has ended by an error"):
        pmap(abs, range(4), backend="joblib", workers=2)


class Slip(Exception):  # noqa: N818 - as Fault
    """What the threads of the standard library's executors survive."""


def slip(*_: object) -> Any:
    raise Slip


def test_one_where_an_executor_of_the_users_calls_back_ends_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskCodec, "decode", slip)
    monkeypatch.setattr(ExternalEngine, "_drop_queued", slip)
    with concurrent.futures.ProcessPoolExecutor(2) as executor, pytest.raises(Slip):
        pmap(abs, range(4), backend=executor, workers=2)
