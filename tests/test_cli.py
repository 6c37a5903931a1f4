from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tokenize
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import anymap
from anymap._cli import demo, main
from anymap._cli._table import table

pytestmark = pytest.mark.full

SIX = ["serial", "threads", "processes", "pathos", "joblib", "dask"]
ON_EACH = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in SIX]
FILES = 60


def program(*arguments, **options):
    command = [sys.executable, "-W", "error", "-m", "anymap", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=100, **options)


def rows(output):
    """Return the table's cells by backend."""
    return {
        line.split()[0]: line.split() for line in output.splitlines() if line.split()[:1] and line.split()[0] in SIX
    }


@pytest.fixture(scope="module")
def digest():
    """The digest of the first files, counted here by other means than the demo's."""
    counts = Counter()
    for path in demo.source_files()[:FILES]:
        with path.open("rb") as file:
            counts.update(tokenize.tok_name[token[0]] for token in tokenize.tokenize(file.readline))
    return hashlib.blake2b(json.dumps(sorted(counts.items())).encode(), digest_size=6).hexdigest()


@pytest.mark.parametrize("backend", ["serial", "processes"])
def test_the_demo_gives_the_answer_of_the_backend_that_is_named(backend, digest):
    run = program("demo", "--backend", backend, "--workers", "2", "--limit", str(FILES), "--no-bar")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert {name: cells[-1] for name, cells in rows(run.stdout).items()} == {"serial": digest, backend: digest}
    assert f"{FILES} source files" in run.stdout


@pytest.mark.parametrize("backend", ON_EACH)
def test_the_sleeping_demo_runs_on_each_backend(backend):
    run = program("demo", "sleep", "--backend", backend, "--workers", "2", "--limit", "30", "--bar")
    assert run.returncode == 0, run.stderr
    assert list(rows(run.stdout)) == [backend]
    assert "The sum is 465." in run.stdout
    assert re.search(rf"{backend}(, [12] workers?)?: 100%", run.stderr)
    assert "30/30" in run.stderr


def test_all_runs_serial_first_and_gives_the_same_answer_on_each_backend(digest):
    run = program("demo", "--all", "--limit", str(FILES), "--workers", "2", "--no-bar")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    cells = rows(run.stdout)
    assert next(iter(cells)) == "serial"
    assert cells["serial"][5] == "1.00"
    assert set(cells) == {info.name for info in anymap.available_backends() if info.available}
    assert {each[-1] for each in cells.values()} == {digest}
    assert all(re.fullmatch(r"\d+\.\d\d", each[column]) for column in (2, 3, 5) for each in cells.values())


def test_the_table_tells_the_workers_and_the_start_up_apart_from_the_work(capsys):
    anymap.shutdown()  # warm workers take no time to start
    assert main(["demo", "sleep", "--backend", "processes", "--workers", "2", "--limit", "4", "--no-bar"]) == 0
    [cells] = rows(capsys.readouterr().out).values()
    assert cells[1] == "2"
    assert float(cells[2]) > 0


@pytest.mark.parametrize("columns", [40, 80])
def test_the_demo_fits_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["demo", "--backend", "threads", "--limit", "40", "--no-bar"]) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= columns
    for name in ("workers", "start-up", "seconds", "files/s", "speed-up", "digest"):
        assert name in output


def test_each_file_is_read_before_the_first_turn(monkeypatch):
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or whole(path))
    work = demo.stdlib(7)
    assert read == list(work.items)


def test_without_the_baseline_there_is_no_speed_up(capsys):
    assert main(["demo", "--backend", "threads", "--limit", "5", "--no-baseline"]) == 0
    cells = rows(capsys.readouterr().out)
    assert list(cells) == ["threads"]
    assert cells["threads"][5] == "-"


def test_a_backend_that_is_not_here_is_listed_with_its_cure(monkeypatch, capsys):
    without("dask", monkeypatch)
    infos = [info for info in anymap.available_backends() if info.name in {"threads", "dask", "serial"}]
    monkeypatch.setattr(anymap, "available_backends", lambda: infos)
    assert main(["demo", "--all", "--limit", "3"]) == 0
    output = capsys.readouterr().out
    assert list(rows(output)) == ["serial", "threads"]
    assert "Not run: dask, for it is away; pip install it" in output


def test_asking_for_a_backend_that_is_not_here_tells_the_cure(monkeypatch, capsys):
    without("dask", monkeypatch)
    assert main(["demo", "--backend", "dask"]) == 2
    assert "pip install it" in capsys.readouterr().err


def without(name, monkeypatch):
    infos = [
        replace(info, available=False, reason="it is away", install="pip install it") if info.name == name else info
        for info in anymap.available_backends()
    ]
    monkeypatch.setattr(anymap, "available_backends", lambda: infos)


def test_a_different_answer_is_a_failure(monkeypatch, capsys):
    real = anymap.pmap

    def forgetful(func, items, *, backend, **options):
        return real(func, items, backend="serial")[backend == "threads" :]

    monkeypatch.setattr(anymap, "pmap", forgetful)
    assert main(["demo", "--backend", "threads", "--limit", "3"]) == 1
    captured = capsys.readouterr()
    assert "differ" in captured.err
    cells = rows(captured.out)
    assert cells["serial"][-1] != cells["threads"][-1]


def test_a_backend_that_fails_does_not_stop_the_others(monkeypatch, capsys, digest):
    def moody(func, items, *, backend, **options):
        if backend == "threads":
            raise RuntimeError("not today")
        return [func(item) for item in items]

    monkeypatch.setattr(anymap, "pmap", moody)
    assert main(["demo", "--all", "--limit", str(FILES)]) == 1
    captured = capsys.readouterr()
    cells = rows(captured.out)
    assert cells.pop("threads") == ["threads", "failed:", "RuntimeError"]
    assert "RuntimeError: not today" in captured.err
    assert {each[-1] for each in cells.values()} == {digest}
    assert len(cells) == len([info for info in anymap.available_backends() if info.available]) - 1


@pytest.mark.parametrize("arguments", [["demo", "--backend", "thread"], ["demo", "sleep", "--backend", "thread"]])
def test_a_misspelt_backend_is_told_by_the_library(arguments):
    run = program(*arguments)
    assert run.returncode == 2
    assert "Did you mean 'threads'?" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_a_forced_backend_is_said_to_be_the_one_that_runs(monkeypatch, capsys):
    monkeypatch.setenv("ANYMAP_FORCE_BACKEND", "threads")
    assert main(["demo", "--all", "--limit", "3"]) == 0
    output = capsys.readouterr().out
    assert "ANYMAP_FORCE_BACKEND=threads" in output
    assert list(rows(output)) == ["threads"]


@pytest.mark.parametrize("workers", ["0", "0%", "200000%%", "two", "1.5"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers):
    run = program("demo", "--limit", "1", "--no-baseline", "--workers", workers)
    assert run.returncode == 2
    assert "workers" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("limit", ["0", "-1", "x"])
def test_a_limit_that_makes_no_sense_is_refused(limit, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--limit", limit])
    assert caught.value.code == 2
    assert "--limit" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ON_EACH)
def test_ctrl_c_ends_the_demo_without_a_traceback(backend):
    command = [sys.executable, "-m", "anymap", "demo", "sleep", "--backend", backend, "--bar", "--workers", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as demonstration:
        assert demonstration.stderr is not None
        seen = ""
        # Items are being finished when the bar shows anything but none.
        while not re.search(r" [1-9]\d*/10000", seen):
            seen += (character := demonstration.stderr.read(1))
            assert character, seen
        os.killpg(demonstration.pid, signal.SIGINT)
        _, rest = demonstration.communicate(timeout=30)
    assert demonstration.returncode == 130
    assert "Traceback" not in seen + rest


def test_a_reader_that_leaves_early_causes_no_complaint():
    with subprocess.Popen(
        [sys.executable, "-m", "anymap", "backends"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as listing:
        assert listing.stdout is not None
        listing.stdout.close()
        assert listing.stderr is not None
        assert listing.stderr.read() == ""


def test_backends_lists_what_there_is():
    run = program("backends")
    assert run.returncode == 0, run.stderr
    assert set(rows(run.stdout)) >= set(SIX)
    assert rows(run.stdout)["serial"][1] == "yes"


def test_backends_tells_what_to_install(monkeypatch, capsys):
    without("dask", monkeypatch)
    assert main(["backends"]) == 0
    assert re.search(r"^dask +no +it is away; pip install it$", capsys.readouterr().out, flags=re.MULTILINE)


def test_the_version_is_the_librarys():
    assert program("--version").stdout == f"anymap {anymap.__version__}\n"


def test_no_command_shows_how_it_is_used():
    run = program()
    assert run.returncode == 0
    assert "usage: anymap" in run.stdout


def test_a_file_that_cannot_be_tokenised_is_counted(tmp_path):
    sources = {
        "coding.py": b"# coding: nothing\n",
        "bytes.py": b"x = '\xff'\n",
        "open.py": b"(\n",
        "dedent.py": b"if x:\n    y\n  z\n",
        "good.py": b"x = 1\n",
    }
    for name, source in sources.items():
        (tmp_path / name).write_bytes(source)
    counts = {name: demo.count_tokens(tmp_path / name) for name in sources}
    assert counts.pop("good.py") == Counter(
        {"ENCODING": 1, "NAME": 1, "OP": 1, "NUMBER": 1, "NEWLINE": 1, "ENDMARKER": 1}
    )
    assert list(counts.values()) == [Counter([demo.NOT_PYTHON])] * 4


def test_the_files_are_the_standard_librarys_and_no_others():
    paths = demo.source_files()
    assert Path(os.__file__) in paths
    assert Path(tokenize.__file__) in paths
    assert Path(json.__file__) in paths
    assert not [path for path in paths if {"site-packages", "dist-packages"} & set(path.parts)]
    assert len(set(paths)) == len(paths) > 500


def test_a_table_is_set_in_columns():
    text = table(["name", "n", "rest"], [["long name", "1", "x"], ["a", "1000", "y"], ["b", "failed"]], right=["n"])
    assert text.splitlines() == [
        "name          n  rest",
        "long name     1  x",
        "a          1000  y",
        "b          failed",
    ]


def test_a_backend_that_keeps_its_promises_is_told_so_in_a_table():
    run = program("check-backend", "serial")
    assert (run.returncode, run.stderr) == (0, "")
    head, *lines = run.stdout.splitlines()
    assert head.split()[:2] == ["verdict", "promise"]
    column = head.index("how it was broken")
    *table, empty, summary = lines
    assert {line[:14].rstrip() for line in table} == {"kept", "not applicable"}
    assert all(line[:14].startswith("not applicable") == bool(line[column:]) for line in table)
    assert table[0].rstrip() == "kept            a map gives what the builtin map gives"
    assert not empty
    kept = sum(line.startswith("kept") for line in table)
    assert summary == f"serial: {len(table)} promises, {kept} kept, 0 broken, {len(table) - kept} not applicable"


def test_a_broken_promise_is_told_in_full_and_fails_the_command(tmp_path):
    source = "from anymap.backends import Serial\nclass Nameless(Serial):\n    name = ''\n"
    (tmp_path / "mine.py").write_text(source)
    # As the installed program starts, which has no folder of the caller's on its path.
    command = [sys.executable, "-P", "-W", "error", "-c", "import sys, anymap._cli; sys.exit(anymap._cli.main())"]
    path = {**os.environ, "PYTHONPATH": str(Path(anymap.__file__).parents[1])}
    arguments = ["check-backend", "mine:Nameless", "--patience", "20"]
    run = subprocess.run([*command, *arguments], check=False, cwd=tmp_path, env=path, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (1, "")
    assert re.search(r"^broken +it has a name and declares traits +its name is \'\'$", run.stdout, re.MULTILINE)
    assert "\nbroken: it has a name and declares traits\n  its name is ''\n" in run.stdout
    assert re.search(r"\nmine:Nameless: \d+ promises, \d+ kept, 1 broken, ", run.stdout)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("serail", "no backend is called 'serail'. Did you mean 'serial'?"),
        ("no_such_module:Mine", "there is no backend at 'no_such_module:Mine'"),
        ("anymap.backends:None_", "there is no backend at 'anymap.backends:None_'"),
        ("anymap:pmap", "'anymap:pmap' is no backend's class"),
    ],
)
def test_what_is_no_backend_is_not_examined(name, said):
    run = program("check-backend", name)
    assert run.returncode == 2
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert not run.stdout


def test_alone_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: anymap" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["demo", "--limit", "0"], "argument --limit: must be a whole number, 1 or more, not '0'"),
        (["demo", "--limit", "x"], "argument --limit: must be a whole number, 1 or more, not 'x'"),
        (["check-backend", "threads", "--patience", "x"], "argument --patience: must be a number of seconds above 0"),
    ],
)
def test_a_wrong_argument_is_told_in_words(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["BACKEND", "FORCE_BACKEND", "WORKERS", "PROGRESS", "WROKERS"])
def test_config_ends_with_1_where_a_variable_is_wrong(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"ANYMAP_{variable}", "x")
    assert main(["config"]) == 1
    assert f"anymap: ANYMAP_{variable}" in capsys.readouterr().err
