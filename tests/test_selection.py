"""``selection`` tells on which backend a map would run, and starts nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import ConfigError, Selection, pmap, selection
from anymap._host import cpus as _cpus
from anymap.backends import Backend, Dask, Threads
from anymap.progress import Started

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.progress import Event


def workers_of(backend: Any, workers: int | None) -> int:
    seen: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, Started):
            seen.append(event.workers)

    pmap(abs, [-1], backend=backend, workers=workers, progress=note)
    return seen[0]


@pytest.mark.full
def test_it_names_the_backend_and_as_many_workers_as_a_map_gets(backend: Backend) -> None:
    found = selection(backend=backend, workers=3)
    assert (found.backend, found.reason) == (backend.name, "the call")
    assert found.workers == (None if isinstance(backend, Dask) else workers_of(backend, 3))


@pytest.mark.parametrize("make", [ThreadPoolExecutor, ThreadPool])
def test_it_knows_the_size_of_an_engine_of_the_users(make: Callable[[int], Any]) -> None:
    with make(3) as engine:
        assert selection(backend=engine).workers == 3
        assert selection(backend=engine, workers=2).workers == workers_of(engine, 2) == 2
        assert selection(backend=engine, workers=8).workers == workers_of(engine, 8) == 3


def test_it_starts_nothing() -> None:
    class Closed(Threads):
        def open(self, workers: int | None) -> None:
            raise AssertionError

    assert selection(backend=Closed(), workers=2).workers == 2


def test_a_backend_that_cannot_tell_before_it_is_open_leaves_the_number_open() -> None:
    class Elsewhere(Threads):
        expected_workers = Backend.expected_workers

    assert selection(backend=Elsewhere()).workers is None
    assert str(selection(backend=Elsewhere())) == "threads, the workers of a cluster: the call"


def test_it_says_what_chose_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = _cpus.available()
    assert selection() == Selection(
        backend="processes", workers=cpus, traits={"kills": True, "sees_death": True}, reason="the default"
    )
    assert selection(prefer="threads").reason == "a library's hint"
    assert str(selection(prefer="threads", workers=1)) == "threads, 1 worker: a library's hint"
    with pytest.warns(UserWarning, match="needs shared memory"):
        assert selection(backend="processes", require="shared_memory").reason == "require='shared_memory'"
    with anymap.using(backend="serial"):
        assert selection().reason.startswith("using() at test_selection.py, line ")
    monkeypatch.setenv("ANYMAP_BACKEND", "threads")
    monkeypatch.setenv("ANYMAP_WORKERS", "7")
    assert str(selection()) == "threads, 7 workers: ANYMAP_BACKEND"
    monkeypatch.setenv("ANYMAP_FORCE_BACKEND", "serial")
    assert str(selection(backend="dask")) == "serial, 1 worker: ANYMAP_FORCE_BACKEND"


def test_inside_of_a_map_it_names_the_rule_for_such_maps() -> None:
    (found,) = pmap(lambda _: str(selection()), [0], backend="threads", workers=2)
    assert found == "serial, 1 worker: nested='serial', as this is inside of a map"


def test_wrong_arguments_are_refused_as_by_a_map() -> None:
    with pytest.raises(anymap.UnknownBackend):
        selection(backend="thread")
    with pytest.raises(ConfigError):
        selection(workers=0)
