"""Workers import what the caller would, and search nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import anymap
from anymap._worker import import_rules

HOME = str(Path(anymap.__file__).parents[1])
LONG = 100.0

PROGRAM = """
import contextlib, os, sys
from anymap import pmap

def look(x):
    import this_is_beside_the_program
    return x + 1, sys.path, os.environ.get("PYTHONSAFEPATH")

backend, *joblib = sys.argv[1].split("-")
if joblib:
    import joblib as engine
    context = engine.parallel_config(joblib[0])
else:
    context = contextlib.nullcontext()
with context:
    for value, path, variable in pmap(look, [1, 2], backend=backend, workers=2):
        assert set(sys.path) <= set(path), path
        assert not {"", os.getcwd()} & set(path), path
        assert variable is None
print("all of it")
"""

BACKENDS = ("processes", "pathos", "joblib-loky", "joblib-multiprocessing", "dask")


@pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=getattr(pytest.mark, name.partition("-")[0])) for name in BACKENDS]
)
def test_files_in_the_current_folder_hide_nothing_that_the_program_elsewhere_imports(
    backend: str, tmp_path: Path
) -> None:
    program, folder = tmp_path / "program", tmp_path / "folder"
    program.mkdir()
    folder.mkdir()
    (program / "run.py").write_text(PROGRAM)
    (program / "this_is_beside_the_program.py").touch()
    for name in ("types", "enum", "random", "signal", "logging"):
        (folder / f"{name}.py").write_text("raise RuntimeError('not the one of the standard library')")
    done = run([str(program / "run.py"), backend], folder)
    assert done.stdout == "all of it\n", done.stderr
    assert not done.stderr


def test_workers_search_folders_in_the_callers_order() -> None:
    entries = ("/before", os.path.dirname(os.__file__), HOME, "/after")
    assert execute(import_rules.statement(entries)) == list(entries)


def test_anymap_comes_last_where_the_caller_searches_its_folder_no_more() -> None:
    assert execute(import_rules.statement(("/only\udc80", Path("/ignored")))) == ["/only\udc80", HOME]  # type: ignore[arg-type]


def execute(statement: str) -> list[str]:
    done = run(["-c", f"{statement}; print(ascii(sys.path))"], Path.cwd())
    found: list[str] = eval(done.stdout)
    return found


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": HOME},
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
