"""The exam for backends: ours pass, and so does one of a package of its own; bad ones fail, on what is bad in them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections import defaultdict
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import loky
import pytest

import anymap
from anymap import pmap
from anymap._plan import live
from anymap.backends import Dask
from anymap.testing import BackendSuite, Outcome, PromiseBroken, examine
from anymap.testing._contract import Contract
from anymap.testing._traits import Declarations
from anymap.testing.suite import all_promises

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from anymap.backends import Backend

pytestmark = pytest.mark.exam

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "anymap-loky"

IN_MEMORY = {
    "a task that its worker cannot load ends its future",
    "a result that cannot be pickled is that items error",
    "an item that cannot be pickled is that items error",
}
KILLS = {"kill ends a worker and its task is lost", "kill is not blamed on other tasks"}
DEATHS = {"a task whose worker dies is lost", "a death costs the item that ran and no other"}
SURVIVAL = {"a death costs the item that ran and no other"}
STUCK = {"a task that was given up harms no other"}
DEADLINES = {"an item that is stuck ends at its deadline"}
AT_ONCE = {
    "a keyboard interrupt in a worker is the items error",
    "a slow task holds up no other",
    "an error ends the map while other items run",
    "as many tasks run at once as its capacity says",
    "closing does not wait for a running task",
    "items that were queued when the map was left never run",
    "leaving does not wait for running items",
}
REFUSED = {"a timeout that cannot be kept is refused"}
BREAKS = {"a death that breaks the engine ends the map and is told by its item"}
FILES = {"workers reach the files of this host unless remote is declared"}
EXCUSED = {
    "TestSerial": REFUSED | BREAKS | IN_MEMORY | KILLS | DEATHS | STUCK | DEADLINES | AT_ONCE,
    "TestThreads": REFUSED | BREAKS | IN_MEMORY | KILLS | DEATHS,
    "TestProcesses": REFUSED | BREAKS | STUCK,
    "TestForks": REFUSED | BREAKS | STUCK,
    "TestPathos": REFUSED | BREAKS | STUCK,
    "TestJoblib": REFUSED | BREAKS | STUCK,
    "TestDask": REFUSED | BREAKS | KILLS | FILES,
    "TestDaskOfItsOwn": REFUSED | BREAKS | STUCK,
    "TestThreadPoolExecutor": REFUSED | BREAKS | IN_MEMORY | KILLS | DEATHS,
    "TestProcessPoolExecutor": REFUSED | KILLS | SURVIVAL,
    "TestLoky": REFUSED | KILLS | SURVIVAL,
    "TestAnyExecutor": BREAKS | KILLS | DEATHS | DEADLINES | FILES,
    "TestThreadPool": REFUSED | BREAKS | IN_MEMORY | KILLS | DEATHS,
    "TestPool": REFUSED | BREAKS | KILLS,
}
"""The promises that cannot apply to a backend. All others must."""


@pytest.fixture(autouse=True, scope="class")
def no_promise_is_excused_that_applies(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.cls is not None:
        outcomes = request.cls.outcomes
        excused = {outcome.promise for outcome in outcomes.values() if outcome.verdict == "not applicable"}
        assert excused == EXCUSED[request.cls.__name__] & set(outcomes)


@pytest.mark.serial
class TestSerial(BackendSuite):
    backend = "serial"


@pytest.mark.threads
class TestThreads(BackendSuite):
    backend = "threads"


@pytest.mark.processes
class TestProcesses(BackendSuite):
    backend = "processes"


@pytest.mark.full
@pytest.mark.processes
class TestForks(BackendSuite):
    backend = anymap.backends.Processes(start_method="fork")


@pytest.mark.full
@pytest.mark.pathos
class TestPathos(BackendSuite):
    backend = "pathos"


@pytest.mark.full
@pytest.mark.joblib
class TestJoblib(BackendSuite):
    backend = "joblib"


@pytest.mark.full
@pytest.mark.dask
class TestDask(BackendSuite):
    @pytest.fixture(autouse=True)
    def backend_on_the_cluster(self, dask_cluster: str) -> None:
        self.backend = Dask(scheduler_file=dask_cluster)


@pytest.mark.full
@pytest.mark.dask
class TestDaskOfItsOwn(BackendSuite):
    backend = "dask"


# --- live engines -----------------------------------------------------------------------------------------------------


class Foreign(Executor):
    """One that nobody knows, and that says nothing of itself."""

    def __init__(self) -> None:
        self._inner = ThreadPoolExecutor(2)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._inner.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._inner.shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.full
class LiveSuite(BackendSuite):
    @pytest.fixture(autouse=True)
    def backend_on_an_engine(self) -> Iterator[None]:
        with self.engine() as engine:
            # An executor may start its workers when it has something for them to do.
            pmap(abs, range(20), backend=engine, chunksize=1)
            adopted = live.adopt(engine)
            assert adopted is not None
            self.backend = adopted
            yield

    def engine(self) -> AbstractContextManager[Any]:
        raise NotImplementedError


class TestThreadPoolExecutor(LiveSuite):
    def engine(self) -> AbstractContextManager[Any]:
        return ThreadPoolExecutor(2)


class TestProcessPoolExecutor(LiveSuite):
    def engine(self) -> AbstractContextManager[Any]:
        return ProcessPoolExecutor(2, multiprocessing.get_context("fork"))


@pytest.fixture(scope="class")
def no_worker_of_loky_left() -> Iterator[None]:
    yield
    loky.get_reusable_executor(2).shutdown(kill_workers=True)


@pytest.mark.usefixtures("no_worker_of_loky_left")
class TestLoky(LiveSuite):
    def engine(self) -> AbstractContextManager[Any]:
        return nullcontext(loky.get_reusable_executor(2, timeout=60))


class TestAnyExecutor(LiveSuite):
    def engine(self) -> AbstractContextManager[Any]:
        return Foreign()


class TestThreadPool(LiveSuite):
    def engine(self) -> AbstractContextManager[Any]:
        return multiprocessing.pool.ThreadPool(2)


class TestPool(LiveSuite):
    def engine(self) -> AbstractContextManager[Any]:
        return multiprocessing.get_context("fork").Pool(2)


# --- a package of a third party ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plugged_in(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the package in ``plugin`` and the example in a folder; return the environment of a Python that has them."""
    folder = tmp_path_factory.mktemp("plugin")
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation"]
    packages = [str(HERE / "plugin"), str(EXAMPLE)]
    subprocess.run([*command, "--target", str(folder), *packages], check=True, capture_output=True)
    path = os.pathsep.join([str(folder), str(Path(anymap.__file__).parents[1])])
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.full
def test_a_backend_of_another_package_is_found_by_its_entry_point(plugged_in: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    # No guard: the workers of this backend do not run the caller's program either.
    program.write_text("""
from anymap import available_backends, pmap

print([info.available for info in available_backends() if info.name == "toy"])
print(pmap(lambda x: x + 1, range(5), backend="toy", workers=2))
""")
    ran = subprocess.run([sys.executable, str(program)], env=plugged_in, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("[True]\n[1, 2, 3, 4, 5]\n", "")


@pytest.mark.full
@pytest.mark.timeout(400)
def test_the_example_sits_the_exam_with_two_lines(plugged_in: dict[str, str], tmp_path: Path) -> None:
    exam = str(EXAMPLE / "tests/test_anymap_loky.py")
    # Its engine sits the whole exam as a live one above.
    outcomes = run_pytest([f"{exam}::TestLoky::{name}" for name in promises_in(Contract)], tmp_path, plugged_in)[
        "TestLoky"
    ]
    assert outcomes == dict.fromkeys(promises_in(Contract), "passed")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_example_passes_the_whole_exam(plugged_in: dict[str, str], tmp_path: Path) -> None:
    outcomes = run_pytest([str(EXAMPLE / "tests/test_anymap_loky.py")], tmp_path, plugged_in)["TestLoky"]
    assert {test for test, outcome in outcomes.items() if outcome == "failure"} == set()
    assert {test for test, outcome in outcomes.items() if outcome == "skipped"} == as_tests(STUCK | BREAKS | REFUSED)
    assert len(outcomes) == len(all_promises())


@pytest.mark.full
@pytest.mark.timeout(400)
def test_the_package_that_the_page_shows_keeps_the_contract(plugged_in: dict[str, str], tmp_path: Path) -> None:
    exam = tmp_path / "test_toy.py"
    exam.write_text("""
from anymap.testing import BackendSuite

class TestToy(BackendSuite):
    backend = "toy"
""")
    # What is in this class and not in the engine.
    tests = [*promises_in(Contract), *promises_in(Declarations)]
    outcomes = run_pytest([f"{exam}::TestToy::{name}" for name in tests], tmp_path, plugged_in)["TestToy"]
    assert {test for test, outcome in outcomes.items() if outcome == "failure"} == set()
    assert {test for test, outcome in outcomes.items() if outcome == "skipped"} == as_tests(BREAKS | REFUSED)
    assert len(outcomes) == len(tests)


# --- bad ones ---------------------------------------------------------------------------------------------------------

ANSWERS = {
    "each of many futures brings its own tasks answer",
    "each task runs once and its future ends once",
    "many small items come through",
    "tasks are taken from several threads",
    "the chunksize makes no difference",
}
EXAMINED_WHOLE = {
    "DeliversTwice": {"each task runs once and its future ends once"},
    "LiesAboutInline": {"tasks run in the callers thread if and only if declared"},
}
"""What each of these breaks, at least."""
EXAMINED_IN_PART = {
    "Hangs": ANSWERS,
    "LosesChunks": ANSWERS,
    "RunsTwice": {"each task runs once and its future ends once"},
    "MixesUp": {"each of many futures brings its own tasks answer"},
    "LiesAboutMemory": {"memory is shared if and only if declared"},
    "HidesInline": {"tasks run in the callers thread if and only if declared"},
    "LiesAboutKills": {"kill ends a worker and its task is lost"},
    "KillsNothing": {"kill ends a worker and its task is lost", "an item that is stuck ends at its deadline"},
    "HidesDeaths": {"a task whose worker dies is lost", "a death costs the item that ran and no other"},
    "LiesAboutForks": {"workers are forks if and only if declared"},
    "LiesAboutCapacity": {"as many tasks run at once as its capacity says", "a slow task holds up no other"},
    "Clings": {"closing does not wait for a running task", "leaving does not wait for running items"},
    "LeavesThreads": {"nothing is left after shutdown", "maps do not pile up what they leave"},
    "SharesItsState": {"copies of one instance do not share what they opened"},
    "SharesMemoryOnceOpen": {"where tasks run is declared before open"},
    "OneThreadOnly": {"tasks are taken from several threads"},
}
"""What each of these breaks; only that is examined, to save time."""


@pytest.fixture(scope="module")
def bad_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    exam = str(HERE / "bad_backends.py")
    whole = [f"{exam}::Test{name}" for name in ["Good", *EXAMINED_WHOLE]]
    parts = [f"{exam}::Test{name}::{test}" for name, broken in EXAMINED_IN_PART.items() for test in as_tests(broken)]
    path = {"PYTHONPATH": str(Path(anymap.__file__).parents[1])}
    return run_pytest([*whole, *parts], tmp_path_factory.mktemp("bad"), {**os.environ, **path})


@pytest.mark.full
@pytest.mark.timeout(400)
def test_a_good_backend_passes_beside_the_bad_ones(bad_results: dict[str, dict[str, str]]) -> None:
    outcomes = bad_results["TestGood"]
    assert {test for test, outcome in outcomes.items() if outcome != "passed"} == as_tests(
        IN_MEMORY | KILLS | DEATHS | BREAKS | REFUSED
    )


@pytest.mark.full
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", EXAMINED_WHOLE | EXAMINED_IN_PART)
def test_a_bad_backend_fails_on_what_is_bad_in_it(name: str, bad_results: dict[str, dict[str, str]]) -> None:
    broken = as_tests((EXAMINED_WHOLE | EXAMINED_IN_PART)[name])
    assert {test for test, outcome in bad_results[f"Test{name}"].items() if outcome == "failure"} >= broken


@pytest.mark.full
@pytest.mark.timeout(400)
def test_a_backend_fails_on_nothing_else(bad_results: dict[str, dict[str, str]]) -> None:
    failed = {test for test, outcome in bad_results["TestDeliversTwice"].items() if outcome == "failure"}
    assert failed == as_tests(EXAMINED_WHOLE["DeliversTwice"])


def promises_in(part: type) -> list[str]:
    return [name for name in vars(part) if name.startswith("test_")]


def as_tests(promises: set[str]) -> set[str]:
    return {f"test_{promise.replace(' ', '_')}" for promise in promises}


def run_pytest(what: list[str], folder: Path, environment: dict[str, str]) -> dict[str, dict[str, str]]:
    """Run tests with neither our configuration nor our fixtures; return by class and test what came of each."""
    report = folder / "report.xml"
    options = ["--noconftest", "-c", os.devnull, "--rootdir", str(folder), "-p", "no:cacheprovider", "-W", "error"]
    command = [sys.executable, "-m", "pytest", *options, "--import-mode=importlib", f"--junitxml={report}", *what]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    print(ran.stdout)  # to be seen where the outcome is not the one that is wanted
    assert report.exists(), ran.stdout + ran.stderr
    outcomes: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ET.parse(report).iter("testcase"):
        outcome = next((element.tag for element in case if element.tag in {"failure", "error", "skipped"}), "passed")
        outcomes[case.attrib["classname"].rpartition(".")[2]][case.attrib["name"]] = outcome
    return outcomes


# --- the exam itself --------------------------------------------------------------------------------------------------


def test_a_report_counts_the_promises() -> None:
    report = examine("serial")
    assert report.broken == []
    assert set(report.not_applicable) == EXCUSED["TestSerial"]
    kept, excused = len(report.kept), len(report.not_applicable)
    assert str(report).endswith(f"\n{kept + excused} promises: {kept} kept, 0 broken, {excused} not applicable")


def test_each_outcome_is_told_as_it_comes() -> None:
    told: list[Outcome] = []
    assert examine("serial", tell=told.append).outcomes == tuple(told)
    assert [outcome.promise for outcome in told] == all_promises()


@pytest.mark.serial
def test_it_is_told_how_to_make_the_backend_in_any_of_three_ways() -> None:
    for way in ("serial", anymap.backends.Serial, anymap.backends.Serial()):
        made = sitting(way).make_backend()
        assert type(made) is anymap.backends.Serial


def test_a_backend_that_hangs_is_told_where() -> None:
    class Stuck(anymap.backends.Serial):
        def open(self, workers: int | None) -> None:
            released.wait()

    released = threading.Event()
    with pytest.raises(PromiseBroken, match=r"released\.wait\(\)"):
        sitting(Stuck, patience=0.01, startup=0.01).test_one_item_is_enough()
    released.set()


def test_an_exam_goes_on_where_what_is_kept_does_not_end() -> None:
    class Sitting(BackendSuite):
        backend = "serial"
        startup = 0.01

        def end_what_is_kept(self) -> None:
            released.wait()

    released = threading.Event()
    exam = Sitting()
    exam.test_one_item_is_enough()
    assert [outcome.verdict for outcome in exam.outcomes.values()] == ["kept"]
    released.set()


def test_what_a_backend_raises_is_in_its_report() -> None:
    class Broken(anymap.backends.Serial):
        def open(self, workers: int | None) -> None:
            raise OSError("no engine here")

    exam = sitting(Broken)
    with pytest.raises(OSError, match="no engine here"):
        exam.test_one_item_is_enough()
    assert list(exam.outcomes.values()) == [("one item is enough", "broken", "OSError: no engine here")]


def test_no_other_backend_is_examined_in_its_stead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_FORCE_BACKEND", "serial")
    with pytest.raises(anymap.ConfigError, match="ANYMAP_FORCE_BACKEND"):
        sitting("threads").test_one_item_is_enough()


def test_the_page_shows_the_package() -> None:
    source = (HERE / "plugin/anymap_toy.py").read_text().partition("import annotations\n\n")[2]
    pages = HERE.parent / "docs/howto/write-a-backend.md"
    assert f"```python\n{source}```\n" in pages.read_text()


def sitting(candidate: str | Backend | type[Backend], **options: float) -> BackendSuite:
    exam: type[BackendSuite] = type("Sitting", (BackendSuite,), {"backend": candidate, **options})
    return exam()
