from __future__ import annotations

import functools
import io
import logging
import os
import subprocess
import sys
import threading
import types
import warnings
from typing import Any
from unittest import mock

import pytest
import tqdm
import tqdm.asyncio
import tqdm.notebook
from hypothesis import given
from hypothesis import strategies as st

from anymap._errors import ConfigError
from anymap.progress import Advanced, BarSink, Emitter, Event, Finished, LogSink, Started, resolve
from anymap.progress._tqdm import Bar

pytestmark = pytest.mark.versions


class Terminal(io.StringIO):
    """A stand-in that says it is a terminal; the real thing is in test_terminal."""

    def isatty(self) -> bool:
        return True


def started(*, desc: str | None = None, total: int | None = 20, backend: str = "", workers: int = 1) -> Started:
    return Started(desc=desc, total=total, backend=backend, workers=workers)


def advanced(done: int, elapsed: float, *, total: int | None = 20, failed: int = 0, retried: int = 0) -> Advanced:
    return Advanced(done=done, failed=failed, retried=retried, lost=0, total=total, elapsed=elapsed)


def finished(
    done: int, elapsed: float, *, total: int | None = 20, failed: int = 0, lost: int = 0, complete: bool = True
) -> Finished:
    return Finished(done=done, failed=failed, retried=0, lost=lost, total=total, elapsed=elapsed, complete=complete)


def drawn(*events: Event, **options: Any) -> list[str]:
    """Return every state of a bar that is given these events."""
    file = io.StringIO()
    sink = BarSink(**{"file": file, "ascii": False, **options})
    # With a clock that stands still, all time is that of the events.
    with mock.patch("tqdm.std.time", return_value=1e9):
        for event in events:
            sink(event)
    return file.getvalue().split("\r")[1:]


def run(program: str) -> str:
    """Run a program in an interpreter of its own and return what it prints; its stderr must stay empty or be drawn."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stdout.strip()


EVENTS = """
from anymap.progress import *
def show(sinks, done=20):
    emitter = Emitter(sinks)
    emitter.emit(Started(desc=None, total=20, backend="serial", workers=1))
    emitter.emit(Advanced(done=3, failed=0, retried=0, lost=0, total=20, elapsed=1.0))
    emitter.emit(Finished(done=done, failed=0, retried=0, lost=0, total=20, elapsed=2.0, complete=done == 20))
"""


# What progress= may be


def stderr_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    # No fixture: pytest puts its own stderr in place between a fixture and its test.
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


@pytest.mark.parametrize("progress", [None, "auto"])
def test_unasked_a_bar_shows_on_a_terminal_once_the_map_has_lasted_half_a_second(
    monkeypatch: pytest.MonkeyPatch, progress: str | None
) -> None:
    terminal = stderr_on_a_terminal(monkeypatch)
    (sink,) = resolve(progress, outermost=True)
    sink(started())
    sink(advanced(3, 0.49))
    assert terminal.getvalue() == ""
    sink(advanced(4, 0.5))
    assert "4/20" in terminal.getvalue()
    sink(finished(20, 1.0))
    assert terminal.getvalue().endswith("\n")


def test_unasked_a_map_that_ends_within_half_a_second_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_on_a_terminal(monkeypatch)
    (sink,) = resolve(None)
    for event in (started(), advanced(3, 0.2), finished(20, 0.4)):
        sink(event)
    assert terminal.getvalue() == ""


def test_unasked_an_inner_map_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr_on_a_terminal(monkeypatch)
    assert resolve(None, outermost=False) == []


@pytest.mark.parametrize("stderr", [io.StringIO(), None, object()])
def test_unasked_nothing_shows_where_nobody_looks(monkeypatch: pytest.MonkeyPatch, stderr: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    assert resolve(None) == []


def test_unasked_nothing_shows_on_a_closed_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert resolve(None) == []


@pytest.mark.parametrize(("shell", "sinks"), [("ZMQInteractiveShell", 1), ("TerminalInteractiveShell", 0)])
def test_unasked_a_bar_shows_in_a_notebook(monkeypatch: pytest.MonkeyPatch, shell: str, sinks: int) -> None:
    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = type(shell, (), {})
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert len(resolve(None)) == sinks


def test_a_notebook_whose_shell_is_derived_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = type("Shell", (type("ZMQInteractiveShell", (), {}),), {})
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert len(resolve(None)) == 1


@pytest.mark.parametrize("progress", [True, "bar", "tqdm", {}, tqdm.tqdm])
@pytest.mark.parametrize("outermost", [True, False])
def test_asked_for_a_bar_shows_at_once_wherever_stderr_goes(
    monkeypatch: pytest.MonkeyPatch, progress: Any, outermost: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    (sink,) = resolve(progress, outermost=outermost)
    sink(started())
    assert "0/20" in file.getvalue()
    sink(finished(20, 0.1))


@pytest.mark.parametrize("progress", [False, "off", "none", [], [False, "off"]])
def test_asked_for_nothing_there_is_no_sink(monkeypatch: pytest.MonkeyPatch, progress: Any) -> None:
    stderr_on_a_terminal(monkeypatch)
    assert resolve(progress) == []


def test_log_is_the_log_sink() -> None:
    (sink,) = resolve("log")
    assert isinstance(sink, LogSink)


def test_a_callable_is_the_sink() -> None:
    seen: list[Event] = []
    assert resolve(seen.append) == [seen.append]


def test_a_list_asks_for_all_that_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr_on_a_terminal(monkeypatch)
    bar, nested, sink = resolve([True, ["log", False], print])
    assert isinstance(bar, BarSink)
    assert isinstance(nested, LogSink)
    assert sink is print


def test_a_mapping_is_passed_through_to_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_on_a_terminal(monkeypatch)
    (sink,) = resolve(types.MappingProxyType({"ncols": 50, "leave": False, "ascii": True, "unit": "file"}))
    for event in (started(), advanced(10, 1.0), finished(20, 2.0)):
        sink(event)
    states = terminal.getvalue().split("\r")
    assert {len(state) for state in states if "|" in state} == {50}
    assert any("file/s" in state for state in states)
    assert "#" in terminal.getvalue()
    assert states[-2].strip() == states[-1] == ""


@pytest.mark.parametrize(
    ("progress", "hint"),
    [
        ({"ncol": 80}, "'ncol'. Did you mean 'ncols'"),
        ({"tqdm_class": tqdm.tqdm, "ncol": 80}, "'ncol'. Did you mean 'ncols'"),
        ({"tqdm_class": tqdm.asyncio.tqdm, "ncol": 80}, "'ncol'. Did you mean 'ncols'"),
        (functools.partial(tqdm.tqdm, leeve=True), "'leeve'. Did you mean 'leave'"),
        (functools.partial(tqdm.notebook.tqdm, dispaly=True), "'dispaly'. Did you mean 'display'"),
        ([True, {"ncol": 80}], "'ncol'"),
        ({"total": 3}, "'total' is not passed on to tqdm: give it to the map"),
        ({"iterable": []}, "'iterable'"),
        ({"initial": 3}, "'initial'"),
        ({1: 2}, "1 is no keyword"),
        ({"display": False}, "'display'"),  # of the widget; this is no notebook
        ({"tqdm_class": print}, "no tqdm class"),
        (functools.partial(tqdm.tqdm, [1, 2]), "only keyword arguments"),
        ("baar", "'baar' asks for nothing known. Did you mean 'bar'?"),
        ("json:out", "Did you mean 'jsonl'"),
        ("jsonl", "The name of a file follows 'jsonl:'"),
        ("bar:out", "The name of a file follows 'jsonl:'"),
        ("jsonl:/no/such/folder/out", "cannot be written to"),
        (1, "progress=1 asks for nothing known. It takes None, True"),
        (2.5, "2.5"),
        ({"bar"}, "a mapping"),
    ],
)
def test_what_asks_for_nothing_known_is_an_error_before_the_map_starts(progress: Any, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(progress)
    assert hint in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_class_that_takes_any_keyword_is_trusted_with_them() -> None:
    class Own(tqdm.tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, mood: str = "", flavour: str, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.told = mood + flavour

    sink = BarSink(Own, mood="good", flavour="sweet", file=io.StringIO())
    sink(started())
    assert sink._bar is not None
    assert sink._bar.told == "goodsweet"
    sink(finished(20, 1.0))


def test_every_keyword_of_tqdm_is_known() -> None:
    file = io.StringIO()
    options: dict[str, Any] = {
        "desc": "d", "leave": True, "file": file, "ncols": 70, "mininterval": 0.1, "maxinterval": 1.0, "miniters": 1,
        "ascii": True, "disable": False, "unit": "x", "unit_scale": True, "dynamic_ncols": False, "smoothing": 0,
        "bar_format": None, "position": 0, "postfix": {"a": 1}, "unit_divisor": 1000, "write_bytes": False,
        "lock_args": None, "nrows": 3, "colour": "green", "delay": 0,
    }  # fmt: skip
    (sink,) = resolve(options)
    for event in (started(), finished(20, 1.0)):
        sink(event)
    assert "20.0/20.0" in file.getvalue()


# The bar


def test_the_bar_counts_items_and_ends_at_exactly_their_number() -> None:
    states = drawn(started(desc="files"), advanced(3, 1.0), advanced(12, 2.0), finished(20, 4.0))
    assert [state.partition(" [")[0][-5:].strip("| ") for state in states] == ["0/20", "3/20", "12/20", "20/20"]
    assert states[-1].startswith("files: 100%|")
    assert states[-1].endswith("20/20 [00:04<00:00,  5.00it/s]\n")


@given(
    total=st.none() | st.integers(0, 50),
    steps=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 3)), max_size=20),
    learnt=st.booleans(),
)
def test_whatever_comes_the_bar_ends_at_the_number_of_items(
    total: int | None, steps: list[tuple[int, float]], learnt: bool
) -> None:
    events: list[Event] = [started(total=total)]
    done, elapsed = 0, 0.0
    for more, seconds in steps:
        done, elapsed = done + more, elapsed + seconds
        events.append(advanced(done, elapsed, total=done if learnt else total))
    last = drawn(*events, finished(done, elapsed, total=total))[-1]
    assert last.startswith(f"100%|██████████| {done}/{done} [" if done else "0it [")
    # Blanks cover what was longer before.
    assert last.rstrip(" \n").endswith("]")
    assert last.endswith("\n")


@pytest.mark.parametrize(
    ("desc", "backend", "workers", "columns", "name"),
    [
        (None, "processes", 2, 80, "processes, 2 workers:   0%|"),
        (None, "dask", 1, 80, "dask, 1 worker:   0%|"),
        (None, "serial", 1, 80, "serial:   0%|"),
        (None, "processes", 2, 40, "  0%|"),
        ("files", "processes", 2, 80, "files:   0%|"),
    ],
)
def test_a_map_without_a_name_is_called_by_what_it_runs_on(
    desc: str | None, backend: str, workers: int, columns: int, name: str
) -> None:
    begin = started(desc=desc, backend=backend, workers=workers)
    assert drawn(begin, finished(20, 1.0), ncols=columns)[0].startswith(name)


def test_a_total_may_become_known_on_the_way() -> None:
    states = drawn(started(total=None), advanced(3, 1.0, total=None), advanced(4, 2.0, total=8), finished(8, 3.0))
    assert [state.split()[0] for state in states] == ["0it", "3it", "50%|█████", "100%|██████████|"]


@pytest.mark.parametrize("hint", [5, 500])
def test_a_total_that_was_wrong_is_put_right_at_the_end(hint: int) -> None:
    assert "100%|██████████| 20/20" in drawn(started(total=hint), finished(20, 1.0, total=hint))[-1]


def test_seconds_pass_while_nothing_completes() -> None:
    states = drawn(started(), advanced(3, 1.0), *(advanced(3, 1 + tenth / 10) for tenth in range(1, 31)))
    assert [state[state.index("[") :][1:6] for state in states if "3/20" in state] == [
        "00:01",
        "00:02",
        "00:03",
        "00:04",
    ]


def test_waiting_does_not_spoil_the_rate() -> None:
    steady = drawn(started(), *(advanced(done, 10.0 * done) for done in range(1, 4)))
    waiting = drawn(started(), *(advanced(tenths // 100, tenths / 10) for tenths in range(1, 301)))
    assert steady[-1] == waiting[-1]
    assert "10.00s/it" in waiting[-1]


def test_a_rush_does_not_hold_back_what_comes_slowly_after_it() -> None:
    states = drawn(started(total=9003), advanced(9000, 0.2, total=9003), advanced(9001, 0.4, total=9003))
    assert "9001/9003" in states[-1]


def test_a_bar_that_opens_late_shows_the_time_of_the_map_and_its_rate() -> None:
    states = drawn(started(), advanced(8, 2.0), advanced(10, 4.0), delay=3.0)
    assert "[00:04<00:04,  2.50it/s]" in states[-1]


def test_a_map_that_ends_before_the_delay_shows_no_bar() -> None:
    assert drawn(started(), advanced(8, 2.0), finished(20, 2.9), delay=3.0) == []


def test_a_map_that_passed_the_delay_unseen_still_shows_how_it_ended() -> None:
    assert "20/20 [00:04" in drawn(started(), finished(20, 4.0), delay=3.0)[-1]


def test_failed_retried_and_lost_are_shown_when_there_are_any() -> None:
    states = drawn(
        started(), advanced(3, 1.0), advanced(4, 2.0, failed=2, retried=1), finished(20, 3.0, failed=2, lost=1)
    )
    assert "it/s]" in states[1]
    assert "it/s, failed=2, retried=1]" in states[2]
    assert "it/s, failed=2, lost=1]" in states[3]


def test_a_postfix_of_the_callers_stays() -> None:
    states = drawn(started(), finished(20, 2.0, failed=3), postfix={"host": "a"})
    assert states[-1].endswith("10.00it/s, host=a, failed=3]\n")


def test_a_map_that_stops_early_leaves_the_bar_as_it_stands() -> None:
    last = drawn(started(), advanced(7, 1.0), finished(8, 2.0, complete=False))[-1]
    assert last.startswith(" 40%|████      | 8/20 [00:02")
    assert last.endswith("]\n")


def test_leave_false_wipes_the_bar() -> None:
    states = drawn(started(), advanced(7, 1.0), finished(20, 2.0), leave=False)
    assert "7/20" in states[1]
    assert [state.strip() for state in states[2:]] == ["", ""]
    assert "\n" not in "".join(states)


def test_the_mapping_may_name_the_map_too() -> None:
    assert drawn(started(desc="map"), desc="mine")[0].startswith("mine: ")


@pytest.mark.parametrize("disable", [True, None])
def test_tqdms_own_ways_to_switch_a_bar_off_work(disable: bool | None) -> None:
    assert drawn(started(), advanced(7, 1.0), finished(20, 2.0), disable=disable) == []


def test_nothing_is_drawn_after_the_end() -> None:
    assert drawn(started(), finished(20, 2.0), advanced(20, 3.0)) == drawn(started(), finished(20, 2.0))


def test_a_sink_serves_one_map_after_another() -> None:
    states = drawn(started(), finished(20, 2.0), started(total=5), finished(5, 1.0, total=5))
    assert [state.strip("\n")[-31:] for state in states if "100%" in state]
    assert "5/5 [00:01<00:00,  5.00it/s]\n" in states[-1]


def test_a_class_of_the_callers_draws_the_bar_and_is_left_as_it_was() -> None:
    class Own(tqdm.tqdm):  # type: ignore[misc]
        def display(self, *args: Any, **kwargs: Any) -> Any:
            shown.append((self.n, self.total))
            return super().display(*args, **kwargs)

    shown: list[tuple[int, int]] = []
    before = dict(vars(Own))
    (sink,) = resolve({"tqdm_class": Own, "file": io.StringIO()})
    for event in (started(), advanced(3, 1.0), finished(20, 2.0)):
        sink(event)
    assert shown[0] == (0, 20)
    assert (3, 20) in shown
    assert shown[-1] == (20, 20)
    assert dict(vars(Own)) == before


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_rich_draws_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    if tqdm.__version__ < "4.67":
        pytest.skip("the bar of this tqdm.rich fails")
    pytest.importorskip("rich")
    from tqdm.rich import tqdm as tqdm_rich

    monkeypatch.setattr(sys, "stdout", file := io.StringIO())
    (sink,) = resolve(tqdm_rich)
    for event in (started(total=9), advanced(3, 1.0, total=9), finished(7, 2.0, total=9)):
        sink(event)
    # Older ones do not show the last count, but they do show the total that was put right.
    assert "/7" in file.getvalue()


@pytest.mark.parametrize("progress", ["True", "tqdm.tqdm", "tqdm.asyncio.tqdm"])
def test_a_bar_makes_no_multiprocessing_lock_and_no_thread(progress: str) -> None:
    program = f"""{EVENTS}
import multiprocessing, sys, threading, tqdm, tqdm.asyncio
seen = []
show([*resolve({progress}), lambda event: seen.append([thread.name for thread in threading.enumerate()])])
assert seen == [["MainThread"]] * 3, seen
assert tqdm.tqdm.monitor_interval == 10 and tqdm.tqdm.monitor is None
assert "_lock" not in vars(tqdm.tqdm) and not hasattr(tqdm.std.TqdmDefaultWriteLock, "mp_lock")
multiprocessing.set_start_method("spawn")
print(multiprocessing.get_start_method())
"""
    assert run(program) == "spawn"


def test_where_no_bar_is_drawn_tqdm_is_not_imported() -> None:
    program = f"""{EVENTS}
import sys
for progress in (None, False, "log", print, [None, "off"]):
    show(resolve(progress))
class Terminal:
    write = flush = lambda *args: None
    isatty = lambda self: True
sys.stderr = Terminal()
(sink,) = resolve(None)
sink(Started(desc=None, total=20, backend="serial", workers=1))
sink(Finished(done=20, failed=0, retried=0, lost=0, total=20, elapsed=0.4, complete=True))
sys.exit("tqdm" in sys.modules)
"""
    run(program)


def test_environment_variables_of_tqdm_hold() -> None:
    program = f"""import io, os
os.environ["TQDM_UNIT"] = "row"
{EVENTS}
file = io.StringIO()
show(resolve({{"file": file}}))
print("row/s" in file.getvalue())
"""
    assert run(program) == "True"


# Several bars, threads and processes


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError("nobody reads")


def test_a_bar_that_cannot_be_drawn_keeps_no_lock_from_the_others() -> None:
    with pytest.raises(BrokenPipeError):
        BarSink(file=Broken())(started())
    states: list[str] = []
    thread = threading.Thread(target=lambda: states.extend(drawn(started(), finished(20, 1.0))), daemon=True)
    thread.start()
    thread.join(10)
    assert "20/20" in states[-1]


def test_a_bar_whose_file_breaks_is_given_up_in_silence() -> None:
    class Breaks(io.StringIO):
        whole = True

        def write(self, text: str) -> int:
            if not self.whole:
                raise BrokenPipeError("nobody reads any more")
            return super().write(text)

    file = Breaks()
    sink = BarSink(file=file)
    sink(started())
    file.whole = False
    with pytest.raises(BrokenPipeError):
        sink(advanced(3, 1.0))
    sink(finished(20, 2.0))


def test_bars_of_maps_in_several_threads_each_end_on_a_line_of_their_own() -> None:
    file = io.StringIO()

    def one_map(name: str) -> None:
        sink = BarSink(file=file, ascii=False)
        sink(started(desc=name))
        barrier.wait()
        for done in range(1, 21):
            sink(advanced(done, float(done)))
        barrier.wait()
        sink(finished(20, 21.0))

    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=one_map, args=(f"map{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = file.getvalue()
    for number in range(8):
        assert f"map{number}: 100%|██████████| 20/20 [00:21<00:00,  1.05s/it]\n" in text.replace("\r", "\n")
    assert not any(isinstance(bar, Bar) for bar in tqdm.tqdm._instances)


def test_bars_take_places_beside_the_callers_own() -> None:
    file = io.StringIO()
    with tqdm.tqdm(total=3, file=file) as outer:
        sink = BarSink(file=file)
        sink(started())
        assert sink._bar is not None
        assert (outer.pos, sink._bar.pos) == (0, 1)
        sink(finished(20, 1.0))


def test_the_callers_own_bars_wait_while_ours_are_drawn() -> None:
    program = f"""{EVENTS}
import io, threading, tqdm
class File(io.StringIO):
    def write(self, text):
        other = threading.Thread(target=try_it)
        other.start()
        other.join()
        return super().write(text)
def try_it():
    taken = [lock for lock in locks if lock.acquire(False)]
    free.append(len(taken) == len(locks))
    for lock in taken:
        lock.release()
free, locks = [], tqdm.tqdm.get_lock().locks
try_it()
show(resolve({{"file": File()}}))
print(free[0], set(free[1:]))
"""
    assert run(program) == "True {False}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_takes_neither_the_lock_nor_the_bars_along() -> None:
    # The lock is held by another thread at the very moment of the fork, unless the fork waits for it.
    program = f"""{EVENTS}
import io, os, threading, warnings
from anymap.progress._tqdm import Bar
warnings.simplefilter("ignore", DeprecationWarning)
class Slow(io.StringIO):
    def write(self, text):
        if threading.current_thread() is not threading.main_thread():
            drawing.set()
            may_go_on.wait(0.2)
        return super().write(text)
drawing, may_go_on = threading.Event(), threading.Event()
file = Slow()
parent = BarSink(file=file)
thread = threading.Thread(target=parent, args=(Started(desc=None, total=20, backend="serial", workers=1),))
thread.start()
drawing.wait()
child = os.fork()
if child == 0:
    before = file.getvalue()
    del parent, thread
    assert file.getvalue() == before and not any(isinstance(bar, Bar) for bar in Bar._instances)
    show(resolve({{"file": file}}))
    os._exit(0 if "20/20" in file.getvalue() else 1)
may_go_on.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
thread.join()
parent(Finished(done=20, failed=0, retried=0, lost=0, total=20, elapsed=2.0, complete=True))
assert "20/20" in file.getvalue()
"""
    assert run(program) == "0"


# Log lines


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def logged(*events: Event) -> list[str]:
    handler = Lines()
    logger = logging.getLogger("anymap.progress.tests")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    sink = LogSink(logger)
    for event in events:
        sink(event)
    logger.removeHandler(handler)
    return handler.lines


def test_a_line_comes_with_each_tenth_of_the_items_and_one_at_the_end() -> None:
    steps = [advanced(done, done / 100, total=1000) for done in range(0, 1001, 7)]
    lines = logged(started(desc="files", total=1000), *steps, finished(1000, 10.06, total=1000))
    assert [line.split(",")[0] for line in lines] == [
        *(f"files: {tenth}0 %" for tenth in range(1, 10)),
        "files: finished",
    ]
    assert lines[0] == "files: 10 %, 105 of 1000 items, 1.1 s"
    assert lines[-1] == "files: finished, 1000 of 1000 items, 0 failed, 10.1 s"


def test_a_line_comes_every_ten_seconds_while_less_than_a_tenth_gets_done() -> None:
    waits = [advanced(3, tenth / 10, failed=1) for tenth in range(351)]
    assert logged(started(), *waits) == [
        "map: 15 %, 3 of 20 items, 1 failed, 0.0 s",
        "map: 15 %, 3 of 20 items, 1 failed, 10.0 s",
        "map: 15 %, 3 of 20 items, 1 failed, 20.0 s",
        "map: 15 %, 3 of 20 items, 1 failed, 30.0 s",
    ]


def test_without_a_total_only_time_counts() -> None:
    events = [advanced(tenth, tenth / 10, total=None) for tenth in range(1, 121)]
    assert logged(started(total=None), *events, finished(120, 12.0, total=None)) == [
        "map: 100 items, 10.0 s",
        "map: finished, 120 items, 0 failed, 12.0 s",
    ]


@given(
    total=st.none() | st.integers(0, 1000),
    steps=st.lists(st.tuples(st.integers(0, 100), st.floats(0, 30)), max_size=50),
)
def test_there_are_never_more_lines_than_tenths_and_tens_of_seconds(
    total: int | None, steps: list[tuple[int, float]]
) -> None:
    events, done, elapsed = [], 0, 0.0
    for more, seconds in steps:
        done, elapsed = done + more, elapsed + seconds
        events.append(advanced(done, elapsed, total=total))
    lines = logged(started(total=total), *events, finished(done, elapsed, total=total))
    assert len(lines) <= 9 + int(elapsed / 10) + 1
    assert "finished" in lines[-1]


def test_the_last_line_tells_of_an_early_stop_and_of_failures() -> None:
    lines = logged(started(desc="files"), finished(7, 61.0, failed=2, lost=1, complete=False))
    assert lines == ["files: stopped, 7 of 20 items, 2 failed, 1 lost, 61.0 s"]


def test_the_log_sink_starts_anew_with_each_map() -> None:
    one_map = (started(desc="files"), advanced(12, 11.0), finished(20, 12.0))
    assert logged(*one_map, *one_map) == logged(*one_map) * 2


def test_a_single_item_is_one_item() -> None:
    assert logged(started(total=1), finished(1, 2.0, total=1)) == ["map: finished, 1 of 1 item, 0 failed, 2.0 s"]


@pytest.mark.parametrize(
    ("setup", "shown"),
    [
        ("", True),
        ("logging.basicConfig(level='INFO')", True),
        ("logging.basicConfig(level='ERROR')", False),
        ("logging.disable()", False),
    ],
)
def test_lines_are_shown_also_where_logging_is_not_configured(setup: str, shown: bool) -> None:
    program = f"import logging\n{setup}\nfrom anymap import pmap\npmap(abs, [1, 2], backend='serial', progress='log')"
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ("map: finished, 2 of 2 items, 0 failed" in ran.stderr) == shown
    assert ran.stdout == ""


def test_the_lines_go_to_a_logger_that_others_can_configure(caplog: pytest.LogCaptureFixture) -> None:
    (sink,) = resolve("log")
    with caplog.at_level(logging.INFO, logger="anymap.progress"):
        sink(finished(20, 1.0))
    assert caplog.record_tuples == [("anymap.progress", logging.INFO, "map: finished, 20 of 20 items, 0 failed, 1.0 s")]


# The emitter


def test_every_sink_is_given_every_event() -> None:
    one: list[Event] = []
    two: list[Event] = []
    events: list[Event] = [started(), advanced(3, 1.0), finished(20, 2.0)]
    emitter = Emitter([one.append, two.append])
    for event in events:
        emitter.emit(event)
    assert one == two == events


def test_an_emitter_is_true_while_somebody_listens(caplog: pytest.LogCaptureFixture) -> None:
    def fails(event: Event) -> None:
        raise RuntimeError("broken")

    assert not Emitter([])
    assert Emitter([print])
    failing = Emitter([fails])
    failing.emit(started())
    assert not failing
    ended = Emitter([lambda event: None])
    ended.emit(finished(20, 1.0))
    assert not ended


def test_a_sink_that_raises_is_reported_once_and_left_out_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Fails:
        calls = 0

        def __call__(self, event: Event) -> None:
            self.calls += 1
            raise RuntimeError("broken")

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 0

        def __repr__(self) -> str:
            return "<my sink>"

    seen: list[Event] = []
    sink = Fails()
    emitter = Emitter([sink, seen.append])
    for event in (started(), advanced(3, 1.0), finished(20, 2.0)):
        emitter.emit(event)
    assert sink.calls == 1
    assert len(seen) == 3
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("anymap", logging.ERROR)
    assert "<my sink>" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "broken"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_inside_a_sink_passes_and_the_sink_stays(interrupt: type[BaseException]) -> None:
    def sink(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Started):
            raise interrupt

    seen: list[Event] = []
    emitter = Emitter([sink])
    with pytest.raises(interrupt):
        emitter.emit(started())
    emitter.emit(finished(20, 1.0))
    assert seen == [started(), finished(20, 1.0)]


def test_a_late_event_goes_nowhere() -> None:
    seen: list[Event] = []
    emitter = Emitter([seen.append])
    for event in (finished(20, 1.0), advanced(20, 1.1), finished(20, 1.2)):
        emitter.emit(event)
    assert seen == [finished(20, 1.0)]


def test_events_of_several_threads_come_one_at_a_time() -> None:
    def sink(event: Event) -> None:
        inside.append(event)
        # Lets the others run, if they may.
        threading.Event().wait(0.001)
        overlaps.append(len(inside) > 1)
        inside.pop()

    def send() -> None:
        barrier.wait()
        for done in range(5):
            emitter.emit(advanced(done, 1.0))

    inside: list[Event] = []
    overlaps: list[bool] = []
    emitter = Emitter([sink])
    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [False] * 20


def test_a_map_may_be_ended_from_within_a_sink() -> None:
    def sink(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Advanced):
            emitter.emit(finished(3, 1.0, complete=False))

    seen: list[Event] = []
    emitter = Emitter([sink])
    emitter.emit(advanced(3, 1.0))
    assert seen == [advanced(3, 1.0), finished(3, 1.0, complete=False)]


# In a notebook


NOTEBOOK = """
import sys
{hide}
{events}
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("error")
    show(resolve(None))
    show(resolve({{"unit": "row"}}), done=7)
"""


def run_notebook(source: str) -> Any:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    with warnings.catch_warnings():
        # What the notebook's own machinery warns of is not ours.
        warnings.simplefilter("ignore")
        nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    return notebook


def test_a_notebook_without_ipywidgets_shows_bars_of_text_and_no_warning() -> None:
    notebook = run_notebook(NOTEBOOK.format(hide="sys.modules['ipywidgets'] = None", events=EVENTS))
    hint, first, second = notebook.cells[0].outputs
    assert (hint.name, hint.text.count("pip install ipywidgets"), hint.text.count("\n")) == ("stderr", 1, 1)
    assert "100%|██████████| 20/20" in first.data["text/plain"]
    assert " 35%|███▌      | 7/20" in second.data["text/plain"]


def test_a_notebook_with_ipywidgets_shows_widgets() -> None:
    pytest.importorskip("ipywidgets")
    notebook = run_notebook(NOTEBOOK.format(hide="", events=EVENTS))
    assert [output.output_type for output in notebook.cells[0].outputs] == ["display_data", "display_data"]
    models = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"].state.values()
    bars = [model.state for model in models if model.model_name == "FloatProgressModel"]
    assert [(bar.value, bar.max, bar.bar_style) for bar in bars] == [(20, 20, "success"), (7, 20, "danger")]
    texts = [model.state.value for model in models if model.model_name == "HTMLModel"]
    assert any("20/20" in text for text in texts)
    assert any("7/20" in text for text in texts)


TASKS = """
sinks = resolve(True)
emitter = Emitter(sinks)
def task(key, done, seconds, ended=False):
    emitter.emit(TaskProgress(key=key, index=int(key), desc="job " + key, done=done, total=10, ended=ended, worker="1",
                              seconds=seconds, elapsed=seconds))
emitter.emit(Started(desc=None, total=20, backend="serial", workers=1))
task("1", 3, 1.0)
task("2", 4, 1.0)
task("1", 10, 2.0, ended=True)
task("3", 5, 1.0)
task("2", 10, 2.0, ended=True)
task("3", 6, 2.0)
"""


def test_tasks_in_a_notebook_are_widgets_that_take_turns() -> None:
    pytest.importorskip("ipywidgets")
    notebook = run_notebook("from anymap.progress import *" + TASKS)
    assert [output.output_type for output in notebook.cells[0].outputs] == ["display_data"] * 3
    models = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"].state
    bars = [model.state for model in models.values() if model.model_name == "FloatProgressModel"]
    assert sorted((bar.value, bar.max) for bar in bars) == [(0, 20), (4, 10), (6, 10)]
    texts = " ".join(model.state.value for model in models.values() if model.model_name == "HTMLModel")
    assert "job 3" in texts.replace("\u2007", " ")
    boxes = [model.state for model in models.values() if model.model_name == "HBoxModel"]
    displays = [models[box.layout.removeprefix("IPY_MODEL_")].state.get("display") for box in boxes]
    assert displays.count("none") == 1  # that of the task which ended last


WITHOUT_WIDGETS = "import sys\nsys.modules['ipywidgets'] = None\nfrom anymap.progress import *"
FINISH = """
emitter.emit(Finished(done=20, failed=0, retried=0, lost=0, total=20, elapsed=2.0, complete=True))
"""


def test_tasks_in_a_notebook_without_widgets_are_lines_below_that_of_their_map() -> None:
    _, shown = run_notebook(WITHOUT_WIDGETS + TASKS).cells[0].outputs
    whole, task = shown.data["text/plain"].split("\n")
    assert "0/20" in whole
    assert "job 3: " in task
    assert "6/10" in task
    _, shown = run_notebook(WITHOUT_WIDGETS + TASKS + FINISH).cells[0].outputs
    [whole] = shown.data["text/plain"].split("\n")
    assert "20/20" in whole


def test_a_real_map_in_a_notebook_without_widgets_shows_its_bar_and_what_items_print() -> None:
    notebook = run_notebook(
        "import sys\nsys.modules['ipywidgets'] = None\nfrom anymap import pmap\n"
        "pmap(print, ['one', 'two'], workers=1, progress=True, backend='processes')"
    )
    outputs = notebook.cells[0].outputs
    [bar] = [output for output in outputs if output.output_type == "display_data"]
    assert bar.data["text/plain"].startswith("processes, 1 worker: 100%|")
    assert "".join(output.text for output in outputs if output.get("name") == "stdout") == "one\ntwo\n"
