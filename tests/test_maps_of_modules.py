"""A module that maps while it is imported is imported by workers too: their maps begin no workers of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import anymap

HOME = str(Path(anymap.__file__).parents[1])
LONG = 100.0
BACKENDS = ("serial", "threads", "processes", "pathos", "joblib", "dask")

MODULE = """
import os
import anymap

class Item:
    def __init__(self, value):
        self.value = value

    def __setstate__(self, state):
        self.value = anymap.pmap(abs, [state["value"], 0], backend=backend, workers=2)[0]

def get(item):
    return item.value

def add_one(x):
    return x + 1

depth = int(os.environ.get("DEPTH", "0"))
if depth > 1:
    os._exit(3)
os.environ["DEPTH"] = str(depth + 1)
backend = os.environ["BACKEND"]
mapped = anymap.pmap(add_one, range(3), backend=backend, workers=2)
with anymap.Pool(2, backend=backend) as pool:
    pooled = pool.map(add_one, range(3))
with anymap.Executor(2, backend=backend) as executor:
    executed = list(executor.map(add_one, range(3)))
"""

PROGRAM = """
import app

assert app.mapped == app.pooled == app.executed == [1, 2, 3]
assert app.anymap.pmap(lambda item: item.value, [app.Item(1), app.Item(2)], backend=app.backend, workers=2) == [1, 2]
print("all of it")
"""


@pytest.mark.parametrize("backend", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in BACKENDS])
def test_a_module_may_map_its_own_function_while_it_is_imported(backend: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(MODULE)
    (tmp_path / "run.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": HOME, "BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.stdout == "all of it\n", done.stderr
