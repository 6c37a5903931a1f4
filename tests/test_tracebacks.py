"""What a person reads when an item fails: the caller's own code, and little else."""

from __future__ import annotations

import gc
import linecache
import os
import signal
import subprocess
import sys
import traceback
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import Executor, Pool, failure, pmap
from anymap._serialize.tracebacks import with_source
from anymap.compat.p_tqdm import p_imap, p_map

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anymap.backends.base import Backend

pytestmark = pytest.mark.versions


def this_file() -> str:
    return sys._getframe().f_code.co_filename


class Here:
    def method(self) -> str:
        return sys._getframe().f_code.co_filename

    @property
    def attribute(self) -> str:
        of_lambda: Callable[[], str] = lambda: sys._getframe().f_code.co_filename  # noqa: E731 - a lambda is what is tried
        return of_lambda()


def test_code_that_travels_by_value_keeps_the_name_of_its_file(backend: Backend) -> None:
    here = Here()

    def files(_: int) -> list[str]:
        def nested() -> str:
            return sys._getframe().f_code.co_filename

        of_generator = next(sys._getframe().f_code.co_filename for _ in range(1))
        return [this_file(), nested(), of_generator, here.method(), here.attribute, Here().method()]

    [found] = pmap(files, [0], backend=backend, workers=2)
    assert found == [__file__] * 6


# --- what is shown ------------------------------------------------------------------------------------------------------


def inverse(x: int) -> float:
    return 1 / x


def work(x: int) -> float:
    return inverse(x) + 1


def through_a_plain_loop() -> object:
    return [work(x) for x in (1, 0)]


def through_pmap(backend: Backend) -> object:
    return pmap(work, [1, 0], backend=backend, workers=2)


def through_a_lazy_map(backend: Backend) -> object:
    with pmap(work, [1, 0], backend=backend, workers=2, lazy=True) as results:
        return next(results), next(results)


def through_indexed(backend: Backend) -> object:
    with pmap(work, [1, 0], backend=backend, workers=2, lazy=True) as results:
        return list(results.indexed())


def through_an_executor(backend: Backend) -> object:
    with Executor(2, backend=backend) as executor:
        return executor.submit(work, 0).result()


def through_a_pool(backend: Backend) -> object:
    with Pool(2, backend=backend) as pool:
        return pool.map(work, [1, 0])


def through_the_iterator_of_a_pool(backend: Backend) -> object:
    with Pool(2, backend=backend) as pool:
        return list(pool.imap(work, [1, 0]))


def through_a_call_of_a_pool(backend: Backend) -> object:
    with Pool(2, backend=backend) as pool:
        return pool.apply(work, (0,))


THROUGH = [
    through_pmap,
    through_a_lazy_map,
    through_indexed,
    through_an_executor,
    through_a_pool,
    through_the_iterator_of_a_pool,
    through_a_call_of_a_pool,
]


def frames_of(run: Callable[[], object]) -> tuple[list[traceback.FrameSummary], list[str]]:
    """Return the frames and the lines that are shown of the error that is raised."""
    with pytest.raises(ZeroDivisionError) as caught:
        run()
    shown = "".join(traceback.format_exception(caught.value)).splitlines()
    return traceback.extract_tb(caught.value.__traceback__), shown


def of_anymap(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    return [frame for frame in frames if frame.filename.startswith(os.path.dirname(anymap.__file__))]


def test_an_error_shows_the_callers_code_and_one_frame_of_ours(backend: Backend) -> None:
    _, plain = frames_of(through_a_plain_loop)
    for through in THROUGH:
        frames, shown = frames_of(partial(through, backend))
        assert len(of_anymap(frames)) <= 1, (through, shown)
        assert [(frame.name, frame.line) for frame in frames[-2:]] == [
            ("work", "return inverse(x) + 1"),
            ("inverse", "return 1 / x"),
        ]
        assert len(shown) <= len(plain) + 10, (through, shown)
        assert shown.count("    return 1 / x") == 1


def through_p_map(backend: Backend) -> object:
    with anymap.using(backend=backend):
        return p_map(work, [1, 0], num_cpus=2)


def through_p_imap(backend: Backend) -> object:
    with anymap.using(backend=backend):
        return list(p_imap(work, [1, 0], num_cpus=2))


@pytest.mark.parametrize("through", [through_p_map, through_p_imap])
def test_an_error_of_p_tqdms_functions_shows_one_frame_of_ours(through: Callable[[str], object]) -> None:
    frames, shown = frames_of(partial(through, "threads"))
    assert len(of_anymap(frames)) <= 1, shown
    assert frames[-1].line == "return 1 / x"


def test_an_interrupt_shows_the_callers_code_and_one_frame_of_ours(backend: Backend) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        pmap(partial(os.kill, os.getpid()), [signal.SIGINT, 0], backend=backend, workers=2)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert len(of_anymap(frames)) <= 1, traceback.format_list(frames)


def test_the_columns_are_those_of_the_worker(backend: Backend) -> None:
    [plain, *_] = reversed(frames_of(through_a_plain_loop)[0])
    [found, *_] = reversed(frames_of(partial(through_pmap, backend))[0])
    assert (found.lineno, found.end_lineno, found.colno, found.end_colno) == (
        plain.lineno,
        plain.end_lineno,
        plain.colno,
        plain.end_colno,
    )


def test_code_of_a_file_that_no_worker_has_shows_its_lines(backend: Backend) -> None:
    source = "def fail(x):\n    # a comment\n    raise KeyError(x)\n"
    file = "<cell 1>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    made: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(source, file, "exec"), made)
        with pytest.raises(KeyError) as caught:
            pmap(made["fail"], [0], backend=backend, workers=2)
        assert "    raise KeyError(x)\n" in "".join(traceback.format_exception(caught.value))
        found = failure(caught.value)
        assert found is not None
        assert "    raise KeyError(x)\n" in found.traceback
    finally:
        del linecache.cache[file]


def test_code_of_a_file_that_only_workers_have_shows_its_lines() -> None:
    def fail(path: str) -> None:
        source = "\n\nraise KeyError('there')\n"
        linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
        exec(compile(source, path, "exec"))

    [error] = pmap(fail, ["<only there>"], backend="processes", workers=1, on_error="return")
    try:
        assert "    raise KeyError('there')\n" in "".join(traceback.format_exception(error))
    finally:
        del linecache.cache["<only there>"]


def test_tracebacks_in_log_records_show_the_lines_that_the_caller_knows(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    source = "import logging\ndef fail(x):\n    try:\n        x / 0\n    except ZeroDivisionError:\n        logging.exception('no')\n"
    file = "<cell 2>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    made: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(source, file, "exec"), made)
        pmap(made["fail"], [1], backend=backend, workers=2)
        assert "    x / 0\n" in caplog.text
    finally:
        del linecache.cache[file]


def test_text_of_a_traceback_from_elsewhere_is_given_the_lines_that_it_lacks() -> None:
    found = (
        f'Traceback (most recent call last):\n  File "{__file__}", line 1, in f\n  File "nowhere", line 1, in g\nE: x\n'
    )
    assert with_source(found).splitlines()[2] == f"    {linecache.getline(__file__, 1).strip()}"
    assert with_source(with_source(found)) == with_source(found)
    assert with_source(found).splitlines()[3:] == ['  File "nowhere", line 1, in g', "E: x"]


def test_a_rebuilt_traceback_holds_on_to_nothing_of_the_callers() -> None:
    class Large:
        pass

    def run() -> tuple[BaseException, weakref.ref[Large]]:
        large = Large()
        [error] = pmap(work, [0], backend="processes", workers=1, on_error="return")
        return error, weakref.ref(large)

    error, large = run()
    gc.collect()
    assert large() is None
    assert error.__traceback__ is not None


def test_pytest_shows_the_items_code_and_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from anymap import pmap\n"
        "def work(x):\n"
        "    return 1 / x\n"
        "def test_it():\n"
        "    pmap(work, [1, 0], backend='processes', workers=1)\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False)
    assert ran.returncode == 1
    assert ">       return 1 / x" in ran.stdout or ">   return 1 / x" in ran.stdout
    assert "without_ours" not in ran.stdout


NOTEBOOK = """
from traitlets.config import Config
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}), colors="nocolor")
shell.run_cell("from anymap import pmap\\ndef work(x):\\n    return 1 / x\\n")
for cell in ("[work(x) for x in (1, 0)]", "pmap(work, [1, 0], backend='processes', workers=1)"):
    shell.run_cell(cell)
    print("END OF CELL")
"""


def test_a_notebook_shows_the_items_code_and_none_of_ours(tmp_path: Path) -> None:
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", NOTEBOOK]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)
    loop, mine, _ = ran.stdout.split("END OF CELL\n")
    assert "return 1 / x" in mine, ran.stderr
    assert "without_ours" not in mine
    assert len(mine.splitlines()) <= len(loop.splitlines()) + 10
