"""Programs that gevent or eventlet has patched: maps run in threads, or are refused before anything runs."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import anymap

PATCHED = {"gevent": ("gevent.monkey", "is_module_patched"), "eventlet": ("eventlet.patcher", "is_monkey_patched")}
OTHER_PROCESSES = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("pathos", "joblib", "dask")]


def have_patched(monkeypatch: pytest.MonkeyPatch, library: str, module: str) -> None:
    name, asked = PATCHED[library]
    stand_in = ModuleType(name)
    setattr(stand_in, asked, module.__eq__)
    monkeypatch.setitem(sys.modules, name, stand_in)


@pytest.mark.parametrize("library", PATCHED)
@pytest.mark.parametrize("module", ["socket", "thread"])
@pytest.mark.parametrize("backend", [pytest.param("processes", marks=pytest.mark.processes), *OTHER_PROCESSES])
def test_workers_in_other_processes_are_refused(
    backend: str, module: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_patched(monkeypatch, library, module)
    with pytest.raises(anymap.UnsupportedOption, match=f"{backend}.*{library} has patched.*'threads' or 'serial'"):
        anymap.pmap(abs, [-1, 2], backend=backend, workers=2)


@pytest.mark.parametrize("library", PATCHED)
@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_maps_in_this_process_run(backend: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    have_patched(monkeypatch, library, "thread")
    assert anymap.pmap(abs, [-1, 2], backend=backend, workers=2) == [1, 2]


@pytest.mark.processes
def test_a_library_that_has_patched_nothing_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    have_patched(monkeypatch, "gevent", "nothing of it")
    assert anymap.pmap(abs, [-1, 2], backend="processes", workers=1) == [1, 2]
