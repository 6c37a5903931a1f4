"""Settings: which of all that is said holds, where it may stand, and what is said of what is wrong."""

from __future__ import annotations

import asyncio
import io
import os
import re
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import ConfigError, configure, explain, pmap, using
from anymap._config import files, layers
from anymap._config.files import find_line
from anymap._config.settings import SETTINGS
from anymap._config.variables import read_value
from anymap._host.cpus import available
from anymap.backends import Threads
from anymap.progress import Started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anymap.backends.base import Backend


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Begin with no file, no variable and nothing configured."""
    for variable in [name for name in os.environ if name.startswith("ANYMAP_")]:
        monkeypatch.delenv(variable)
    (home := tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    (project := tmp_path / "project").mkdir()
    monkeypatch.chdir(project)
    files.forget()
    yield
    files.forget()
    configure(**dict.fromkeys([*SETTINGS, "profile", "backends"]))
    assert not layers.configured


def ran_on(**options: Any) -> str:
    started: list[Started] = []
    pmap(abs, [1], progress=lambda event: started.append(event) if isinstance(event, Started) else None, **options)
    return started[0].backend


def value(name: str) -> Any:
    return layers.current().value(name)


def origin(name: str) -> str:
    return layers.current().all()[name].origin


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


# --- which of them holds ----------------------------------------------------------------------------------------------


def test_each_place_beats_those_below_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (value("workers"), origin("workers")) == (None, "default")
    file = write(tmp_path / "project" / "anymap.toml", "workers = 2\n")
    files.forget()
    assert (value("workers"), origin("workers")) == (2, f"{file}, line 1")
    monkeypatch.setenv("ANYMAP_WORKERS", "3")
    assert (value("workers"), origin("workers")) == (3, "ANYMAP_WORKERS")
    configure(workers=4)
    assert value("workers") == 4
    assert origin("workers").startswith("configure() at test_config.py, line ")
    with using(workers=5):
        assert value("workers") == 5
        assert origin("workers").startswith("using() at test_config.py, line ")
        with using(workers=6):
            assert value("workers") == 6
        assert value("workers") == 5
    configure(workers=None)
    assert value("workers") == 3


def test_the_call_beats_what_is_set_and_what_is_forced_beats_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with using(backend="threads"):
        assert ran_on() == "threads"
        assert ran_on(prefer="processes") == "threads"
        assert ran_on(backend="serial") == "serial"
        monkeypatch.setenv("ANYMAP_FORCE_BACKEND", "serial")
        assert ran_on() == ran_on(backend="threads") == "serial"


def test_a_librarys_hint_beats_only_the_default() -> None:
    assert ran_on(prefer="threads") == "threads"
    configure(backend="serial")
    assert ran_on(prefer="threads") == "serial"


@pytest.mark.parametrize(
    ("settings", "items", "failed"),
    [({"timeout": 0.05}, 1, anymap.ItemTimeout), ({"retries": 3}, 2, None), ({"chunksize": 1, "window": 1}, 3, None)],
)
def test_what_a_call_leaves_open_is_taken_from_what_is_set(
    settings: Any, items: int, failed: type[Exception] | None
) -> None:
    tried: list[int] = []
    enough = threading.Event()

    def work(item: int) -> int:
        tried.append(item)
        if failed:
            enough.wait(10)
        if "retries" in settings and len(tried) < 3:
            raise ValueError(item)
        return item

    with using(backend="threads", workers=1, **settings):
        if failed:
            with pytest.raises(failed):
                pmap(work, range(items))
        else:
            assert pmap(work, range(items)) == list(range(items))
    enough.set()
    assert layers.current().value("retries") == 0


def test_a_call_can_do_without_what_is_set() -> None:
    with using(backend="threads", timeout=0.01, retries=5):
        assert pmap(threading.Event().wait, [0.05], timeout=float("inf"), retries=0) == [False]


# --- using ------------------------------------------------------------------------------------------------------------


def test_a_block_holds_for_its_own_thread_alone() -> None:
    seen: list[Any] = []
    with using(workers=7):
        thread = threading.Thread(target=lambda: seen.append(value("workers")))
        thread.start()
        thread.join()
        assert value("workers") == 7
    assert seen == [None]
    assert value("workers") is None


def test_each_asyncio_task_has_its_own() -> None:
    async def one(workers: int, met: asyncio.Barrier) -> Any:
        with using(workers=workers):
            await met.wait()
            return value("workers")

    async def all_at_once() -> list[Any]:
        met = asyncio.Barrier(3)
        return await asyncio.gather(*(one(workers, met) for workers in (1, 2, 3)))

    assert asyncio.run(all_at_once()) == [1, 2, 3]


def test_a_block_ends_with_an_exception_too() -> None:
    with pytest.raises(ZeroDivisionError), using(workers=7):
        1 / 0  # noqa: B018
    assert value("workers") is None


def test_a_decorated_function_has_it_at_each_call_also_within_itself() -> None:
    @using(workers=3)
    def count(depth: int) -> list[Any]:
        return [value("workers"), *(count(depth - 1) if depth else [])]

    assert count(2) == [3, 3, 3]
    assert value("workers") is None


def test_a_decorated_coroutine_has_it_while_it_runs() -> None:
    @using(workers=3)
    async def later() -> Any:
        await asyncio.sleep(0)
        return value("workers")

    assert asyncio.run(later()) == 3


def test_a_generator_is_refused_as_it_would_run_outside_of_the_block() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="inside of it"):
        using(workers=3)(numbers)


def test_a_lazy_map_keeps_what_held_when_it_was_called() -> None:
    with using(backend="threads", workers=1):
        results = pmap(lambda _: threading.current_thread().name, [1], lazy=True)
    assert next(results) == "anymap-thread"


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_nearest_file_upwards_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "project" / "anymap.toml", "workers = 2")
    write(tmp_path / "project" / "a" / "pyproject.toml", "[tool.anymap]\nworkers = 3")
    write(tmp_path / "project" / "a" / "b" / "pyproject.toml", "[project]\nname = 'x'")
    (below := tmp_path / "project" / "a" / "b" / "c").mkdir()
    for folder, workers in (below, 3), (tmp_path / "project", 2):
        monkeypatch.chdir(folder)
        files.forget()
        assert value("workers") == workers


@pytest.mark.parametrize(
    "text",
    ["[tool]\nanymap.workers = 3", "[tool.anymap.profiles]\n[tool.'anymap']\nworkers = 3", "tool.anymap.workers = 3"],
)
def test_the_table_of_a_project_is_found_however_it_is_written(tmp_path: Path, text: str) -> None:
    write(tmp_path / "project" / "pyproject.toml", text)
    assert value("workers") == 3


def test_a_project_that_only_mentions_the_name_has_no_table(tmp_path: Path) -> None:
    write(tmp_path / "home" / ".config" / "anymap" / "anymap.toml", "workers = 1")
    write(tmp_path / "project" / "pyproject.toml", "[tool.anymap-more]\nworkers = 3")
    assert value("workers") == 1


def test_a_file_that_is_named_comes_before_and_the_users_own_after(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = write(tmp_path / "home" / ".config" / "anymap" / "anymap.toml", "workers = 1")
    assert files.user_path() == str(own)
    assert value("workers") == 1
    write(tmp_path / "project" / "anymap.toml", "workers = 2")
    files.forget()
    assert value("workers") == 2
    named = write(tmp_path / "named.toml", "workers = 3")
    monkeypatch.setenv("ANYMAP_CONFIG", str(named))
    assert (value("workers"), origin("workers")) == (3, f"{named}, line 1")
    monkeypatch.setenv("ANYMAP_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigError, match=r"ANYMAP_CONFIG names .*missing\.toml"):
        value("workers")


def test_a_file_is_read_once_and_not_by_the_import(tmp_path: Path) -> None:
    write(tmp_path / "project" / "anymap.toml", "workers = 'broken'")
    code = """
        import anymap, os
        from anymap import pmap
        try:
            pmap(abs, [1])
        except anymap.ConfigError as exc:
            assert "anymap.toml, line 1: workers" in str(exc), exc
        open("anymap.toml", "w").write("backend = 'serial'")
        assert pmap(os.getpid().__add__, [0]) == [os.getpid()]
        open("anymap.toml", "w").write("workers = 'broken'")
        assert pmap(abs, [-1]) == [1]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_two_files_in_one_folder_are_one_too_many(tmp_path: Path) -> None:
    write(tmp_path / "project" / "anymap.toml", "workers = 2")
    write(tmp_path / "project" / "pyproject.toml", "[tool.anymap]\nworkers = 3")
    with pytest.raises(ConfigError, match="keep one of them"):
        pmap(abs, [1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrokers = 2", r"anymap.toml, line 1: there is no setting 'wrokers'. Did you mean 'workers'"),
        ("\n# more\nworkers = 'many'", r"anymap.toml, line 3: workers must be a whole number"),
        ("workers = 2.5", r"line 1: workers must be a whole number"),
        ("timeout = -1", r"line 1: timeout must be a number of seconds above 0, not -1"),
        ("nested = 'serail'", r"line 1: nested must be one of .* Did you mean 'serial'"),
        ("[profiles.big]\nbackend = 'serial'\ntimeout = 'x'", r"line 3: timeout must be"),
        ("[profiles]\nbig = 1", r"line 2: profiles.big must be a table"),
        ("[profiles.big]\nprofile = 'x'", r"line 2: there is no setting 'profile'"),
        ("backends.dask = 1", r"line 1: backends.dask must be a table"),
        ("profile = 3", r"line 1: profile must be a string"),
        ("workers = \ntimeout = 1", r"anymap.toml cannot be read: .*line 1"),
        ("show_items = 'maybe'", r"line 1: show_items must be one of 'on', 'off'"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "project" / "anymap.toml", text)
    with pytest.raises(ConfigError, match=message):
        pmap(abs, [1])


@pytest.mark.parametrize("table", ["[backends.dask]\n{}", "[profiles.far.backends.dask]\n{}", "backends.dask = {{{}}}"])
@pytest.mark.parametrize("option", ["address = 'tcp://evil:1'", "scheduler_file = 'x.json'", "security = {}"])
def test_a_file_that_came_with_the_folder_may_not_say_where_to_connect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: str, option: str
) -> None:
    file = write(tmp_path / "project" / "anymap.toml", table.format(option))
    with pytest.raises(ConfigError, match="may not say where to connect") as raised:
        pmap(abs, [1])
    name = option.partition(" ")[0]
    assert f"ANYMAP_BACKENDS__DASK__{name.upper()}" in str(raised.value)
    assert files.user_path() in str(raised.value)
    monkeypatch.setenv("ANYMAP_CONFIG", str(file))
    assert pmap(abs, [-1], backend="serial") == [1]


def test_nothing_that_a_file_names_is_imported_by_reading_it(tmp_path: Path) -> None:
    write(tmp_path / "project" / "trap.py", "raise SystemExit('imported')")
    write(tmp_path / "project" / "anymap.toml", "progress = 'trap'\n[backends.trap]\noption = 'trap:thing'")
    code = "import anymap; anymap.explain(); from anymap import pmap; print(pmap(abs, [-1], progress=False))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("[1]\n")


@pytest.mark.parametrize(
    ("text", "wanted", "line"),
    [
        ("a = 1\nb = 2", ("b",), 2),
        ("[a]\nb = 1\n[c]\nb = 2", ("c", "b"), 4),
        ("[a.b]\nc.d = 1", ("a", "b", "c", "d"), 2),
        ("[ a . 'b' ]\n\"c\" = 1", ("a", "b", "c"), 2),
        ("a = { b = 1 }", ("a", "b"), 1),
        ("[a]\n", ("a", "b"), 1),
        ("x = 1", ("a",), None),
    ],
)
def test_the_line_of_a_key_is_found(text: str, wanted: tuple[str, ...], line: int | None) -> None:
    assert find_line(text, wanted) == line


def test_the_table_of_the_log_file_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "project" / "pyproject.toml", "[tool.anymap.logs]\nfile = 'run.log'\nmax_bytes = 5")
    assert value("log_file") == {"filename": "run.log", "max_bytes": 5}
    assert origin("log_file") == f"{file}, line 1"


# --- profiles ---------------------------------------------------------------------------------------------------------

PROFILES = """
workers = 1
timeout = 9

[profiles.big]
workers = 2
retries = 2

[profiles.small]
workers = 3
"""


def test_a_profile_stands_where_it_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "project" / "anymap.toml", PROFILES)
    assert (value("workers"), value("retries")) == (1, 0)
    monkeypatch.setenv("ANYMAP_PROFILE", "big")
    assert (value("workers"), value("retries"), value("timeout")) == (2, 2, 9)
    assert origin("workers").startswith("profile 'big' (")
    monkeypatch.setenv("ANYMAP_WORKERS", "7")
    assert value("workers") == 7
    with using(profile="small"):
        assert (value("workers"), value("retries")) == (3, 0)
        with using(workers=8):
            assert value("workers") == 8
    with using(profile="small", workers=9):
        assert value("workers") == 9


def test_a_file_may_choose_one_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "project" / "anymap.toml", "profile = 'big'\n" + PROFILES)
    assert (value("workers"), value("timeout")) == (2, 9)


def test_a_profile_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with using(profile="big"), pytest.raises(ConfigError, match=r"no profile 'big'.*there is no configuration file"):
        pmap(abs, [1])
    write(tmp_path / "project" / "anymap.toml", PROFILES)
    files.forget()
    with using(profile="bgi"), pytest.raises(ConfigError, match=r"using\(\) at .*Did you mean 'big'"):
        pmap(abs, [1])


# --- wrong elsewhere --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [using, configure])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"wrokers": 2}, "there is no setting 'wrokers'. Did you mean 'workers'"),
        ({"workers": 0}, "workers must not be 0"),
        ({"timeout": "soon"}, "timeout must be a number of seconds"),
        ({"nested": "both"}, "nested must be one of"),
        ({"backends": ["dask"]}, "backends must be a mapping"),
        ({"retries": "three"}, "retries must be a number of attempts"),
    ],
)
def test_what_is_wrong_in_code_is_told_at_once(call: Any, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(**given)


@pytest.mark.parametrize(
    ("variable", "given", "message"),
    [
        ("ANYMAP_WROKERS", "2", "Did you mean 'ANYMAP_WORKERS'"),
        ("ANYMAP_TIMEOUT", "soon", "ANYMAP_TIMEOUT must be a number of seconds above 0, not 'soon'"),
        ("ANYMAP_CHUNKSIZE", "0", "ANYMAP_CHUNKSIZE must be a whole number"),
        ("ANYMAP_BACKENDS__DASK", "x", "there is no such setting"),
        ("ANYMAP_BACKENDS__PROCESSES__STRAT_METHOD", "fork", "no option 'strat_method'. Did you mean 'start_method'"),
        ("ANYMAP_BACKENDS__PROCESSES__START_METHOD", "frok", "ANYMAP_BACKENDS__PROCESSES__START_METHOD"),
    ],
)
def test_what_is_wrong_in_the_environment_is_told_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, given: str, message: str
) -> None:
    monkeypatch.setenv(variable, given)
    with pytest.raises(ConfigError, match=message):
        pmap(abs, [1])


def test_a_backend_that_is_not_there_is_told_with_where_it_is_named(tmp_path: Path) -> None:
    write(tmp_path / "project" / "anymap.toml", "\nbackend = 'daks'")
    with pytest.raises(ConfigError, match=r"anymap.toml, line 2: .*Did you mean 'dask'"):
        pmap(abs, [1])


@pytest.mark.parametrize(
    ("given", "read"),
    [("4", 4), ("-1", -1), ("2.5", 2.5), ("50%", "50%"), ("true", True), ("off", "off"), ("inf", float("inf")),
     ("[1, 2]", [1, 2]), ("{a = 1}", {"a": 1}), ("tcp://host:1", "tcp://host:1"), ("[", "[")],
)  # fmt: skip
def test_a_variable_is_read_as_toml_where_it_is_some(given: str, read: Any) -> None:
    assert read_value(given) == read


# --- options of backends ----------------------------------------------------------------------------------------------


def test_options_reach_their_backend_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_BACKENDS__PROCESSES__START_METHOD", "fork")
    configure(backends={"processes": {"max_tasks_per_worker": 1}, "joblib": {"no": "such"}})
    monkeypatch.setattr(sys, "seen_by_forks", "yes", raising=False)
    assert pmap(lambda _: getattr(sys, "seen_by_forks", "no"), [0], backend="processes", workers=1) == ["yes"]
    pids = pmap(lambda _: os.getpid(), range(3), backend="processes", workers=1, chunksize=1)
    assert len(set(pids)) == 3
    assert ran_on(backend="threads") == "threads"


def test_an_instance_comes_with_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_BACKENDS__THREADS__NO", "1")
    assert ran_on(backend=Threads()) == "threads"
    with pytest.raises(ConfigError, match="no option 'no'"):
        ran_on(backend=Threads, workers=1)


# --- explain ----------------------------------------------------------------------------------------------------------


def test_explain_prints_every_setting_with_its_value_and_origin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = write(tmp_path / "project" / "anymap.toml", "chunksize = 7\n[backends.dask]\ntimeout = 3\n")
    monkeypatch.setenv("ANYMAP_WORKERS", "3")
    printed = io.StringIO()
    with using(backend="threads"):
        explain(printed)
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in printed.getvalue().splitlines()[2:]}
    assert rows.keys() >= SETTINGS.keys()
    assert rows["backend"][0] == "'threads'"
    assert rows["backend"][1].startswith("using() at test_config.py")
    assert rows["workers"] == ["3", "ANYMAP_WORKERS"]
    assert rows["chunksize"] == ["7", f"{file}, line 1"]
    assert rows["backends.dask.timeout"] == ["3", f"{file}, line 3"]
    assert rows["timeout"] == ["None", "default"]
    assert rows["file"][0] == repr(str(file))
    monkeypatch.setenv("ANYMAP_FORCE_BACKEND", "serial")
    printed = io.StringIO()
    explain(printed)
    assert "'serial'" in printed.getvalue()
    assert "ANYMAP_FORCE_BACKEND" in printed.getvalue()


@pytest.mark.parametrize(
    ("settings", "runs"),
    [
        ({}, rf"processes, {available()} workers?: the default"),
        ({"workers": 3}, r"processes, 3 workers: the default"),
        ({"backend": "serial"}, r"serial, 1 worker: using\(\) at test_config.py, line \d+"),
        ({"backend": "dask"}, rf"dask, {available()} workers?: using\(\) at test_config.py, line \d+"),
    ],
)
def test_explain_says_what_will_run(settings: Any, runs: str) -> None:
    with using(**settings):
        explain(file := io.StringIO())
    first, _, *rows = file.getvalue().splitlines()
    assert re.fullmatch(f"A map runs here on: {runs}", first)
    found = {line.split()[0]: line.split()[1] for line in rows}
    assert found["backend"] != "None"
    assert found["workers"] != "None"


def test_explain_says_what_is_wrong_with_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_BACKEND", "nope")
    explain(file := io.StringIO())
    assert file.getvalue().startswith("A map runs here on: nothing: ANYMAP_BACKEND: no backend is called 'nope'")


def test_what_explain_says_is_what_runs(backend: Backend) -> None:
    with using(backend=backend):
        explain(file := io.StringIO())
        started: list[Started] = []
        pmap(abs, [1], progress=lambda event: started.append(event) if isinstance(event, Started) else None)
    [event] = started
    line = file.getvalue().splitlines()[0]
    assert f": {event.backend}" in line
    assert f"{event.workers} worker" in line or "the workers of a cluster" in line


def test_the_program_prints_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from anymap._cli import main

    monkeypatch.setenv("ANYMAP_WORKERS", "3")
    assert main(["config"]) == 0
    assert "ANYMAP_WORKERS" in capsys.readouterr().out


def test_the_program_finds_wrong_options_of_backends_that_are_not_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from anymap._cli import main

    file = write(tmp_path / "project" / "anymap.toml", "[backends.processes]\nstrat_method = 'fork'")
    assert pmap(abs, [-1], backend="serial") == [1]
    assert main(["config"]) == 1
    assert f"{file}, line 2: backend 'processes' has no option 'strat_method'" in capsys.readouterr().err


# --- maps inside of maps ----------------------------------------------------------------------------------------------


def inner(_: int) -> list[tuple[str, int, bool]]:
    seen: list[Started] = []
    pmap(abs, [1], progress=lambda event: seen.append(event) if isinstance(event, Started) else None)
    return [(seen[0].backend, seen[0].workers, value("show_items"))]


@pytest.mark.parametrize("rule", ["serial", "threads"])
def test_the_rule_and_the_settings_travel_with_the_work(backend: Backend, rule: Any) -> None:
    with using(nested=rule, show_items=False):
        (((name, _, shown),),) = pmap(inner, [0], backend=backend, workers=1)
    assert (name, shown) == (rule, False)


def test_by_the_rule_inherit_they_run_where_the_outer_one_does(backend: Backend) -> None:
    if backend.traits.forks or backend.name == "dask":
        pytest.skip("seen in the matrix of nested maps")
    with using(backend=backend.name, nested="inherit", workers=1):
        (((name, workers, _),),) = pmap(inner, [0])
    assert (name, workers) == (backend.name, 1)


def test_workers_of_maps_inside_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    from anymap._host import cpus

    monkeypatch.setattr(cpus, "available", lambda: 8)
    with using(nested="threads"):
        assert pmap(inner, [0, 1], backend="threads", workers=4)[0][0][:2] == ("threads", 2)
        assert pmap(inner, [0, 1], backend="threads", workers=100)[0][0][:2] == ("threads", 1)


@pytest.mark.parametrize("name", ["processes", "pathos"])
def test_threads_that_a_function_starts_are_inside_of_its_map(name: str) -> None:
    def task(_: int) -> str:
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(inner(0)[0][0]))
        thread.start()
        thread.join()
        return seen[0]

    assert pmap(task, [0], backend=name, workers=1) == ["serial"]


def test_a_backend_that_cannot_travel_is_told_of_where_it_is_wanted() -> None:
    unpicklable = Threads()
    unpicklable.lock = threading.Lock()  # type: ignore[attr-defined]
    with using(nested="inherit", backend=unpicklable):
        assert pmap(abs, [-1], backend="processes", workers=1) == [1]
        with pytest.raises(ConfigError, match="exists in its own process alone"):
            pmap(inner, [0], backend="processes", workers=1)


def test_a_block_inside_of_a_task_holds_there() -> None:
    def task(_: int) -> str:
        with using(backend="threads"):
            return inner(0)[0][0]

    assert pmap(task, [0], backend="threads") == ["threads"]
    assert pmap(task, [0], backend="processes", workers=1) == ["threads"]


def test_what_is_forced_is_forced_inside_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_FORCE_BACKEND", "threads")
    assert pmap(inner, [0])[0][0][0] == "threads"


# --- threads of numerical libraries -----------------------------------------------------------------------------------


def blas_threads(_: int = 0) -> int:
    import numpy as np
    import threadpoolctl

    np.ones((2, 2)) @ np.ones((2, 2))
    return max((info["num_threads"] for info in threadpoolctl.threadpool_info()), default=0)


@pytest.mark.parametrize("name", ["threads", "processes", "pathos"])
def test_workers_and_their_inner_threads_share_the_cpus(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from anymap._host import inner_threads

    for variable in inner_threads.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    if not (before := blas_threads()):
        pytest.skip("this numpy has no library that can be told")
    with using(inner_threads=2):
        assert set(pmap(blas_threads, range(4), backend=name, workers=1)) == {2}
    with using(nested="threads"):
        assert set(pmap(blas_threads, range(4), backend=name, workers=2)) == {1}
    assert blas_threads() == before
