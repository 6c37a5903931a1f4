from __future__ import annotations

import email
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from importlib import metadata
from itertools import chain, product
from pathlib import Path
from typing import Any, TypeVar

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import anymap

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run_fresh(program: str) -> str:
    """Run a program in an interpreter that has imported nothing yet, and return what it prints."""
    ran = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout.strip()


def public_modules() -> list[str]:
    found = pkgutil.walk_packages(anymap.__path__, "anymap.")
    return ["anymap", *(module.name for module in found if not re.search(r"\._", module.name))]


def build(target: str, source: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the sdist, as those who package it do."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


def test_the_sdist_holds_what_belongs_and_nothing_else(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        files = [member.name.split("/", 1)[1] for member in archive if member.isfile()]
    # hatchling adds the last two itself.
    documents = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", "tox.ini"}
    folders = {"anymap", "docs", "examples", "tests"}
    assert {file for file in files if "/" not in file} == documents | {".gitignore", "PKG-INFO"}
    assert {file.split("/", 1)[0] for file in files if "/" in file} == folders
    assert {Path(file).suffix for file in files if "/" in file} <= {
        ".py",
        ".typed",
        ".md",
        ".svg",
        ".css",
        ".toml",
        ".txt",
    }


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
    shipped = {file for file in files if ".dist-info/" not in file}
    ours = (ROOT / "anymap").rglob("*")
    assert shipped == {str(path.relative_to(ROOT)) for path in ours if path.suffix in {".py", ".typed"}}
    assert {"anymap/py.typed", "anymap/testing/__init__.py"} <= shipped
    assert any(file.endswith(".dist-info/licenses/LICENSE") for file in files)


def test_the_wheel_tells_its_extras_and_its_program(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {file.split("/")[0] for file in archive.namelist() if ".dist-info/" in file}
        told = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
    needed = [Requirement(line) for line in told.get_all("Requires-Dist", [])]
    assert told["Name"] == "anypmap"
    assert told["Requires-Python"] == ">=3.11"
    assert {one.name for one in needed if one.marker is None} == {"cloudpickle", "tqdm"}
    assert set(told.get_all("Provides-Extra", [])) == {"pathos", "joblib", "dask", "logs", "rich", "threads", "all"}
    assert "anymap = anymap._cli:main" in scripts


def test_all_takes_every_other_extra() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (every,) = map(Requirement, extras["all"])
    assert every.name == "anypmap"
    assert every.extras == extras.keys() - {"all"}


def test_ci_tests_with_versions_that_are_written_down() -> None:
    project = PROJECT["project"]
    asked = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    needed = {canonicalize_name(Requirement(line).name) for line in asked} - {canonicalize_name(project["name"])}
    for file in ("newest.txt", "lowest.txt"):
        lines = (ROOT / "tests/constraints" / file).read_text().splitlines()
        pinned = [Requirement(line) for line in lines if not line.startswith("#")]
        assert all(str(one.specifier).startswith("==") for one in pinned)
        assert needed <= {canonicalize_name(one.name) for one in pinned}


def test_the_lowest_environment_pins_every_lower_bound() -> None:
    tox = ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    pins = {str(Requirement(line)) for line in tox["testenv:py311-lowest{,-engines}"]["deps"].split()}
    project = PROJECT["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "all" for line in lines]
    assert pins == {line.replace(">=", "==") for line in project["dependencies"] + extras}


def test_ci_runs_each_test_that_is_not_long() -> None:
    tox = ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert {"py313", "py311-lowest", "py311-lowest-engines"} <= set(re.split(r",\s*", tox["tox"]["env_list"]))
    newest, lowest = tox["testenv"]["commands"], tox["testenv:py311-lowest{,-engines}"]["commands"]
    selections = re.findall(r"!full: pytest .*-m \"(.+)\"", newest) + re.findall(
        r"engines: pytest .*-m \"(.+)\"", lowest
    )
    assert len(selections) == 3
    for full, dask, exam, versions in product([True, False], repeat=4):
        marks = {"full": full, "dask": dask, "exam": exam, "versions": versions, "long": False}
        assert any(eval(marked, marks) for marked in selections)


def test_the_changelog_speaks_of_this_version_or_of_none_yet() -> None:
    newest = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[0]
    assert newest in {"Unreleased", PROJECT["project"]["version"]}


@pytest.mark.skipif(not (ROOT / ".ci").exists(), reason="an sdist has no CI")
def test_ci_runs_the_command_of_the_readme() -> None:
    (command,) = [line for line in (ROOT / ".ci/run").read_text().splitlines() if "tox" in line and line[0] != "#"]
    assert f"$ {command}" in (ROOT / "README.md").read_text().splitlines()
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="tox installs the wheel")
def test_what_is_tested_is_the_installed_wheel() -> None:
    assert Path(anymap.__file__).is_relative_to(sys.prefix)
    assert metadata.version("anypmap") == PROJECT["project"]["version"]


def test_importing_loads_no_third_party_module() -> None:
    names = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(run_fresh(f"import anymap; {names}").split()) - set(run_fresh(names).split())
    assert loaded - sys.stdlib_module_names == {"anymap"}


def test_importing_has_no_side_effect() -> None:
    program = """
import logging, os, signal, sys, threading
events = []
sys.addaudithook(lambda event, args: events.append((event, *args)))
shared = lambda: os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
own_files = lambda: [name for name in shared() if f"-{os.getpid()}-" in name]  # others come and go
state = lambda: (
    dict(os.environ), threading.enumerate(), logging.root.handlers[:], signal.getsignal(signal.SIGINT),
    sys.excepthook, threading.excepthook, own_files(),
)
before = state()
import anymap
after = state()
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
assert after == before, (before, after)
suspects = {"os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen", "socket.__new__", "socket.connect", "os.mkdir"}
done = [event for event in events if event[0] in suspects]
written = [event for event in events if event[0] == "open" and event[3] & WRITES and "__pycache__" not in str(event[1])]
assert not {"_multiprocessing", "_posixshmem"} & set(sys.modules), "it could make semaphores and shared memory"
print(done + written)
"""
    assert run_fresh(program) == "[]"


@pytest.mark.parametrize("name", public_modules())
def test_what_a_public_module_offers_is_there_and_nothing_public_is_left_out(name: str) -> None:
    module = importlib.import_module(name)
    ours = {entry: value for entry, value in vars(module).items() if getattr(value, "__module__", None) == name}
    public = {entry for entry, value in ours.items() if entry[0] != "_" and not isinstance(value, TypeVar)}
    assert len(module.__all__) == len(set(module.__all__))
    assert [entry for entry in module.__all__ if not hasattr(module, entry)] == []
    assert public <= set(module.__all__)
