"""Programs without a guard: from a file, ``-c``, standard input, a zip, pytest and a notebook, on every backend.

Each program appends a line to a file at its top level. One line afterwards proves that no worker ran it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipapp
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

import pytest

import anymap

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.full

BACKENDS = ("serial", "threads", "processes", "pathos", "joblib", "dask")
HOME = str(Path(anymap.__file__).parents[1])
LONG = 100.0

DEFINITIONS = """
import dataclasses, enum, functools, os, sys
from anymap import pmap

with open(os.environ["RUNS"], "a") as runs:
    runs.write(f"{__name__}\\n")

backend = os.environ["BACKEND"]
OFFSET = 10

def add(x):
    return x + OFFSET

class Base:
    made = 0

    def __init__(self, value):
        Base.made += 1
        self.value = value

    def next(self):
        return type(self)(self.value + 1)

class Derived(Base):
    kinds = []

    def next(self):
        made = super().next()
        made.partner = Partner(made)
        return made

class Partner:
    __slots__ = ("of",)

    def __init__(self, of):
        self.of = of

Derived.kinds += [Derived, Partner]

@dataclasses.dataclass(frozen=True)
class Point:
    x: int

    def next(self):
        return dataclasses.replace(self, x=self.x + 1)

class Color(enum.Enum):
    red = 1
    green = 2

class OwnError(Exception):
    pass

@functools.lru_cache
def remembered(x):
    return x + OFFSET

def fail(x):
    raise OwnError(x)

UNSET = object()
calls = 0

class Options:
    def __init__(self, value=UNSET):
        self.value = value

    def count(self):
        global calls
        calls += 1
        return calls

def count_unset(options):
    global calls
    calls += 1
    return options.value is UNSET, options.count(), options
"""

CHECKS = """
assert pmap(add, range(4), backend=backend, workers=2) == [10, 11, 12, 13]
assert pmap(lambda x: add(x) + 1, range(2), backend=backend, workers=2) == [11, 12]
assert pmap(functools.partial(add), range(2), backend=backend, workers=2) == [10, 11]
assert pmap(remembered, range(2), backend=backend, workers=2) == [10, 11]

Base.made = 100
made_here = 2 if backend in ("serial", "threads") else 0
results = pmap(Derived.next, [Derived(1), Derived(2)], backend=backend, workers=2)
assert [type(result) for result in results] == [Derived] * 2
assert [result.value for result in results] == [2, 3]
assert all(type(result.partner) is Partner and result.partner.of is result for result in results)
assert Base.made == 102 + made_here, Base.made
assert Derived.kinds == [Derived, Partner]
assert pmap(Point.next, [Point(1)], backend=backend, workers=2) == [Point(2)]
assert pmap(lambda color: color, list(Color), backend=backend, workers=2) == list(Color)
[error] = pmap(fail, [1], backend=backend, workers=2, on_error="return")
assert type(error) is OwnError, error
results = pmap(count_unset, [Options(), Options()], backend=backend, workers=2, chunksize=2)
assert [result[:2] for result in results] == [(True, 2), (True, 4)], results
assert all(options.value is UNSET for *_, options in results)
results = pmap(add, iter(range(1000)), backend=backend, workers=2, lazy=True)
assert next(results) == 10
results.close()
"""

# What a program of its own has set is seen by the next map. A module is imported by workers as it is in its file.
CHANGES = """
OFFSET = 20
assert pmap(add, range(4), backend=backend, workers=2) == [20, 21, 22, 23]
print("all of it")
"""

PROGRAM = DEFINITIONS + CHECKS + CHANGES


def run(command: list[str], folder: Path, backend: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": HOME, "BACKEND": backend, "RUNS": str(folder / "runs")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def as_file(folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM)
    return run(["program.py"], folder, backend)


def as_module(folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM)
    return run(["-m", "package"], folder, backend)


def as_command(folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    return run(["-c", PROGRAM], folder, backend)


def as_standard_input(folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    return run(["-"], folder, backend, input=PROGRAM)


def as_zip(folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    source = folder / "source"
    source.mkdir()
    (source / "__main__.py").write_text(PROGRAM)
    zipapp.create_archive(source, folder / "program.pyz")
    return run(["program.pyz"], folder, backend)


def as_test(folder: Path, backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    tests = folder / "inner" / "tests"
    tests.mkdir(parents=True)
    checks = indent(CHECKS, "    ")
    (tests / "test_program.py").write_text(f"{DEFINITIONS}\ndef test_program():\n{checks}")
    (tests.parent / "pytest.ini").touch()
    # Run from a folder that has a package of the same name, in which the test cannot be found.
    (folder / "tests").mkdir()
    return run(["-m", "pytest", "-p", "no:cacheprovider", *arguments, str(tests)], folder, backend)


def as_test_that_nobody_can_import(folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    return as_test(folder, backend, "--import-mode=importlib")


NOTEBOOK_RUNNER = """
import json, sys
import nbformat
from nbclient import NotebookClient

cells = [nbformat.v4.new_code_cell(source) for source in json.load(sys.stdin)]
notebook = NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=90, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.outputs:
        print(output.get("text", output))
# With ipywidgets the bar is a widget, whose text is among the notebook's data.
print(notebook.metadata.get("widgets"))
"""


def as_notebook(folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    bar = "_ = pmap(add, range(20), backend=backend, workers=2, progress=True)"
    # Another cell uses what the first one defined.
    return run(["-c", NOTEBOOK_RUNNER], folder, backend, input=json.dumps([PROGRAM, bar]))


WAYS: dict[str, Callable[[Path, str], subprocess.CompletedProcess[str]]] = {
    "file": as_file,
    "module": as_module,
    "command": as_command,
    "standard input": as_standard_input,
    "zip": as_zip,
    "pytest": as_test,
    "pytest importlib": as_test_that_nobody_can_import,
    "notebook": as_notebook,
}


def cases() -> list[object]:
    return [
        pytest.param(way, backend, marks=[getattr(pytest.mark, backend), *extent(way, backend)], id=f"{way}-{backend}")
        for way in WAYS
        for backend in (BACKENDS if way != "module" else ("processes", "pathos"))
    ]


def extent(way: str, backend: str) -> list[pytest.MarkDecorator]:
    if way == "file" or backend == "processes":
        return []
    # Our own cluster's workers start as those of `processes` do, and `test_backend_dask.py` runs commands and standard input.
    return [pytest.mark.long if backend == "dask" and way != "notebook" else pytest.mark.full]


@pytest.mark.parametrize(("way", "backend"), cases())
def test_no_guard_is_needed_and_no_worker_runs_the_callers_main(way: str, backend: str, tmp_path: Path) -> None:
    done = WAYS[way](tmp_path, backend)
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said
    runs = (tmp_path / "runs").read_text().split()
    if way == "pytest":
        # A module that workers can import is imported by them, as any other is.
        assert set(runs) == {"test_program"}
        return
    assert len(runs) == 1, runs
    if way == "notebook":
        assert "20/20" in done.stdout, said
    elif way != "pytest importlib":
        assert "all of it" in done.stdout, said
        assert done.stderr == "" or backend == "pathos"
