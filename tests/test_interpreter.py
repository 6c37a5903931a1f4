"""What workers are started with is a Python like the caller's, or the map says that it is not before anything runs."""

from __future__ import annotations

import multiprocessing.spawn
import shlex
import sys
from typing import TYPE_CHECKING

import pytest

import anymap
from anymap._worker import interpreter

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("processes", "joblib", "dask")]


def have_executable(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    monkeypatch.setattr(interpreter, "_checked", set())
    monkeypatch.setattr(sys, "executable", path)
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", path)


def program(folder: Path, command: str) -> str:
    file = folder / "launcher"
    file.write_text(f"#!/bin/sh\nexec {command}\n")
    file.chmod(0o700)
    return str(file)


def refusal(backend: str) -> str:
    with pytest.raises(anymap.UnsupportedOption, match=r"set_executable\(\) at|Set sys\.executable") as refused:
        anymap.pmap(abs, [-1, 2], backend=backend, workers=2)
    return str(refused.value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", [None, ""])
def test_without_an_executable_the_map_says_so(backend: str, path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    have_executable(monkeypatch, path)
    assert "sys.executable does not say where" in refusal(backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_program_is_named_with_what_it_says(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path, "echo a server is ready")
    have_executable(monkeypatch, path)
    said = refusal(backend)
    assert path in said
    assert "a server is ready" in said


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_that_says_nothing_is_waited_for_no_longer_than_the_limit(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path, "sleep 1000")
    have_executable(monkeypatch, path)
    monkeypatch.setattr(interpreter, "FIRST_WORD", 0.01)
    said = refusal(backend)
    assert path in said
    assert "has not answered" in said


def test_a_program_that_cannot_be_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "nothing")
    have_executable(monkeypatch, path)
    assert path in refusal("processes")


def test_a_launcher_of_this_python_is_asked_once_and_starts_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path, f'{shlex.quote(sys.executable)} "$@"')
    have_executable(monkeypatch, path)
    anymap.shutdown()
    assert anymap.pmap(abs, [-1, 2], backend="processes", workers=1) == [1, 2]
    monkeypatch.setattr(interpreter, "_answer_fault", lambda path: pytest.fail("asked again"))
    assert anymap.pmap(abs, [-1, 2], backend="processes", workers=1) == [1, 2]


def test_the_python_that_runs_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere nothing tells which program this is")
    monkeypatch.setattr(interpreter, "_checked", set())
    monkeypatch.setattr(interpreter, "_answer_fault", lambda path: pytest.fail("asked"))
    assert interpreter.checked(sys.executable, "") == sys.executable
