"""Which backends there are, and what is said of one that is not."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import anymap
from anymap import BackendUnavailable, ConfigError, UnknownBackend, pmap, register
from anymap.backends import Threads, _registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = ["serial", "threads", "processes", "pathos", "joblib", "dask"]


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = dict(_registry._registered)
    yield
    _registry._registered.clear()
    _registry._registered.update(before)


def listed(name: str) -> anymap.BackendInfo:
    [info] = [info for info in anymap.available_backends() if info.name == name]
    return info


def test_our_six_are_listed_first() -> None:
    assert [info.name for info in anymap.available_backends()][:6] == OURS


def test_listing_imports_no_engine_and_no_third_party() -> None:
    code = (
        "import sys, anymap; names = [info.name for info in anymap.available_backends()];"
        "print(names[:6], sorted({'distributed', 'dask', 'joblib', 'pathos', 'tqdm', 'numpy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == f"{OURS} []"


@pytest.mark.parametrize("name", OURS)
def test_what_the_table_says_of_a_backend_is_what_its_class_says(name: str) -> None:
    made = _registry.find(name)()
    assert made.name == name
    assert listed(name).traits == _registry._as_dict(made.traits)


class Mine(Threads):
    name = "mine"


def test_a_registered_class_is_found_by_its_name() -> None:
    register("mine", Mine)
    assert listed("mine").available
    assert pmap(abs, [-1], backend="mine") == [1]


def test_a_name_that_is_taken_stays_what_it_is() -> None:
    with pytest.raises(ConfigError, match="'threads' is already registered"):
        register("threads", Mine)
    register("mine", Mine)
    register("mine", Mine)
    with pytest.raises(ConfigError, match="choose another name"):
        register("mine", Threads)


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownBackend, match=r"no backend is called 'procesess'. Did you mean 'processes'\?"):
        pmap(abs, [-1], backend="procesess")


def test_what_is_missing_is_said_with_the_line_that_installs_it() -> None:
    register("moon", "moonlib.backend:Moon", requires=("moonlib",), install="pip install moonlib-anymap")
    assert listed("moon") == anymap.BackendInfo(
        "moon", False, "the module 'moonlib' is not installed", "pip install moonlib-anymap", {}
    )
    with pytest.raises(BackendUnavailable, match="pip install moonlib-anymap"):
        pmap(abs, [-1], backend="moon")
    with pytest.raises(ImportError):
        pmap(abs, [-1], backend="moon")


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        ("import there_is_no_such_module", BackendUnavailable, "there_is_no_such_module"),
        ("import PACKAGE.there_is_none", ModuleNotFoundError, "there_is_none"),
        ("from os import there_is_no_such_name", ImportError, "there_is_no_such_name"),
        ("undefined_name", NameError, "undefined_name"),
    ],
)
def test_a_bug_in_a_backend_is_not_reported_as_missing(
    source: str, error: type[Exception], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"buggy_{abs(hash(source))}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(source.replace("PACKAGE", package) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    register("buggy", f"{package}:Backend")
    with pytest.raises(error, match=text) as caught:
        pmap(abs, [-1], backend="buggy")
    assert isinstance(caught.value, BackendUnavailable) == (error is BackendUnavailable)


def test_an_installed_package_announces_its_backend(tmp_path: Path) -> None:
    (tmp_path / "toylib.py").write_text("from anymap.backends import Threads\nclass Toy(Threads):\n    name = 'toy'\n")
    info = tmp_path / "toylib-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toylib\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[anymap.backends]\ntoy = toylib:Toy\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import anymap;"
        "print([info.name for info in anymap.available_backends()][6:], 'toylib' in sys.modules);"
        "print(anymap.pmap(abs, [-1], backend='toy'))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[0].endswith("'toy'] False")
    assert ran.stdout.splitlines()[1] == "[1]"
