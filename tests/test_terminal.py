"""What a bar looks like on a real terminal: a program of its own draws into a pty, pyte reads the screen back."""

from __future__ import annotations

import itertools
import os
import re
import select
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import tqdm

pytestmark = pytest.mark.full

pty = pytest.importorskip("pty")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")
pyte = pytest.importorskip("pyte")

if TYPE_CHECKING:
    from collections.abc import Iterator

LINES = 24

# mark() sets the terminal's title: it says in the stream itself how far the program had come.
SCRIPT = r"""
import sys, threading
import tqdm.std
from anymap.progress import *

# All time is that of the events.
tqdm.std.time = lambda: 1e9

def mark(name):
    sys.stderr.write(f"\x1b]2;{name}\x07")
    sys.stderr.flush()

class Map:
    def __init__(self, progress=True, desc=None, total=20):
        self.total = total
        self.emitter = Emitter(resolve(progress))
        self.emitter.emit(Started(desc=desc, total=total, backend="serial", workers=1))

    def at(self, done, elapsed, failed=0):
        self.emitter.emit(
            Advanced(done=done, failed=failed, retried=0, lost=0, total=self.total, elapsed=elapsed)
        )

    def task(self, key, done, seconds, total=10, desc=None, ended=False):
        self.emitter.emit(
            TaskProgress(
                key=key, index=7, desc=desc, done=done, total=total, ended=ended, worker="1", seconds=seconds,
                elapsed=seconds,
            )
        )

    def end(self, done, elapsed, failed=0):
        self.emitter.emit(
            Finished(
                done=done, failed=failed, retried=0, lost=0, total=self.total, elapsed=elapsed,
                complete=done == self.total,
            )
        )
"""


class Shots(dict[str, list[str]]):
    """The screen as it was at each mark, and under ``end`` as the program left it: lines without trailing blanks."""

    cursor: tuple[int, int] = (0, 0)
    """Line and column at the end."""


def shown(program: str, columns: int = 80, *, claimed: int | None = None) -> Shots:
    """Run a program on a terminal that is ``columns`` wide, and ``claimed`` wide as far as it tells the program."""
    screen = pyte.Screen(columns, LINES)
    stream = pyte.ByteStream(screen)
    shots = Shots()
    # Title by title: what comes after a mark is not yet on the screen when the picture is taken.
    for part in re.split(rb"(\x1b\]2;\w+\x07)", output(program, columns if claimed is None else claimed)):
        stream.feed(part)
        if part.startswith(b"\x1b]2;"):
            shots[screen.title] = [line.rstrip() for line in screen.display]
    shots["end"] = [line.rstrip() for line in screen.display]
    shots.cursor = (screen.cursor.y, screen.cursor.x)
    return shots


def output(program: str, columns: int) -> bytes:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"}
    # With it a print is two writes, and what others write may come between.
    environment.pop("PYTHONUNBUFFERED", None)
    command = [sys.executable, "-W", "error", "-c", program]
    try:
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        text = b"".join(read(ours, time.monotonic() + 60))
        assert process.wait(10) == 0, text.decode()
    finally:
        os.close(ours)
    assert b"Traceback" not in text, text.decode()
    return text


def read(terminal: int, give_up: float) -> Iterator[bytes]:
    while select.select([terminal], [], [], give_up - time.monotonic())[0]:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # Linux says so when the last program on it has ended
            return
        if not block:
            return
        yield block
    raise TimeoutError("the program does not end")


def lines(shot: list[str]) -> list[str]:
    """Return the lines down to the last that is not empty."""
    return "\n".join(shot).rstrip("\n").split("\n")


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("desc", [None, "files"])
def test_the_bar_stays_on_one_line_and_ends_at_a_hundred_per_cent(columns: int, desc: str | None) -> None:
    program = f"""{SCRIPT}
bar = Map(desc={desc!r})
for done in range(20):
    bar.at(done, done / 2, failed=done // 4)
mark("on")
bar.end(20, 10.0, failed=4)
"""
    shots = shown(program, columns)
    (running,) = lines(shots["on"])
    (last,) = lines(shots["end"])
    assert "95%|" in running
    assert "19/20" in running
    assert "100%|" in last
    assert "| 20/20 [00:1" in last
    assert (len(running), len(last)) <= (columns - 1, columns - 1)
    assert ("failed=4]" in last) == (columns > 40)
    assert shots.cursor == (1, 0)


def test_a_terminal_that_claims_no_columns_is_taken_for_80() -> None:
    program = f"""{SCRIPT}
bar = Map(desc="files")
mark("first")
bar.at(10, 5.0)
mark("half")
bar.end(20, 10.0)
"""
    shots = shown(program, 80, claimed=0)
    assert [len(lines(shot)) for shot in shots.values()] == [1, 1, 1]
    assert "0/20" in shots["first"][0]
    assert "10/20 [00:05" in shots["half"][0]
    assert "100%|" in shots["end"][0]
    assert shots["end"][0].endswith("20/20 [00:10<00:00,  2.00it/s]")
    assert len(shots["end"][0]) == 79


def test_a_bar_follows_a_window_that_is_made_narrower() -> None:
    program = f"""{SCRIPT}
import fcntl, struct, termios
bar = Map()
bar.at(10, 5.0)
mark("wide")
fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
sys.stderr.write("\\r\\x1b[2K")
bar.at(11, 5.5)
mark("narrow")
bar.end(20, 10.0)
"""
    shots = shown(program, 80)
    assert [len(lines(shot)[0]) for shot in shots.values()] == [79, 49, 49]


def test_a_width_that_was_asked_for_is_kept() -> None:
    assert len(lines(shown(f"{SCRIPT}\nMap({{'ncols': 60}}).end(20, 1.0)")["end"])[0]) == 60


def test_a_width_in_tqdms_environment_variable_is_kept() -> None:
    if tqdm.__version__ < "4.67":
        pytest.skip("this tqdm takes the width for text and fails")
    program = f"import os\nos.environ['TQDM_NCOLS'] = '44'\n{SCRIPT}\nMap().end(20, 1.0)"
    assert len(lines(shown(program)["end"])[0]) == 44


def test_seconds_pass_on_the_screen_while_the_count_stands_still() -> None:
    program = f"""{SCRIPT}
bar = Map()
bar.at(3, 1.0)
mark("one")
for tenth in range(11, 75):
    bar.at(3, tenth / 10)
mark("seven")
bar.end(20, 10.0)
"""
    shots = shown(program)
    assert "3/20 [00:01" in shots["one"][0]
    assert "3/20 [00:07" in shots["seven"][0]


def test_a_map_that_stops_early_leaves_its_bar_and_a_fresh_line() -> None:
    shots = shown(f"{SCRIPT}\nbar = Map()\nbar.at(5, 1.0)\nbar.end(7, 2.0)\nprint('done')")
    bar, after = lines(shots["end"])
    assert " 35%|" in bar
    assert "7/20 [00:02" in bar
    assert after == "done"


def test_leave_false_leaves_nothing() -> None:
    shots = shown(f"{SCRIPT}\nbar = Map({{'leave': False}})\nbar.at(5, 1.0)\nmark('on')\nbar.end(20, 2.0)")
    assert "5/20" in shots["on"][0]
    assert lines(shots["end"]) == [""]
    assert shots.cursor == (0, 0)


def test_unasked_a_bar_shows_after_half_a_second_and_not_before() -> None:
    shots = shown(
        f"{SCRIPT}\nbar = Map(None)\nbar.at(5, 0.4)\nmark('before')\nbar.at(6, 0.6)\nmark('after')\nbar.end(20, 2.0)"
    )
    assert lines(shots["before"]) == [""]
    assert "6/20 [00:00<00:01, 10.00it/s]" in shots["after"][0]


ENDS = [("first", "second", "third"), ("third", "second", "first"), ("second", "first", "third")]


@pytest.mark.parametrize("ends", ENDS)
def test_bars_of_several_maps_keep_to_their_lines_and_each_is_left_once(ends: tuple[str, ...]) -> None:
    program = f"""{SCRIPT}
maps = {{name: Map(desc=name) for name in ("first", "second", "third")}}
def draw(names, seconds):
    for name in names:
        maps[name].at(seconds, seconds)
draw(maps, 5)
mark("all")
running = list(maps)
for seconds, name in enumerate({ends}, 6):
    maps[name].end(20, seconds)
    running.remove(name)
    draw(running, seconds)
    mark(name)
"""
    shots = shown(program)
    assert [line[:6].rstrip(":") for line in lines(shots["all"])] == ["first", "second", "third"]
    for number, name in enumerate(ends, 1):
        text = lines(shots[name])
        assert [line.split(":")[0] for line in text[:number]] == list(ends[:number])
        assert all("20/20" in line for line in text[:number])
        assert sorted(line.split(":")[0] for line in text[number:]) == sorted(ends[number:])
        assert all(f"{5 + number}/20" in line for line in text[number:])
    assert len(lines(shots["end"])) == 3
    assert shots.cursor == (3, 0)


def test_maps_in_two_threads_draw_without_disturbing_each_other() -> None:
    program = f"""{SCRIPT}
barrier = threading.Barrier(2)
def run(name):
    bar = Map(desc=name)
    barrier.wait()
    for done in range(20):
        bar.at(done, float(done))
    barrier.wait()
    bar.end(20, 20.0)
threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    shots = shown(program)
    assert sorted(line[:9] for line in lines(shots["end"])) == ["one: 100%", "two: 100%"]
    assert all("20/20 [00:20" in line for line in lines(shots["end"]))


def test_a_bar_below_the_callers_own_leaves_it_whole() -> None:
    program = f"""{SCRIPT}
import tqdm
with tqdm.tqdm(total=2, desc="outer") as outer:
    for turn in (1, 2):
        bar = Map({{"leave": False}}, desc="inner")
        bar.at(10, 1.0)
        mark(f"turn{{turn}}")
        bar.end(20, 2.0)
        outer.update()
        outer.refresh()
"""
    shots = shown(program)
    for turn in ("turn1", "turn2"):
        assert [line[:6] for line in lines(shots[turn])] == ["outer:", "inner:"]
    assert [line[:11] for line in lines(shots["end"])] == ["outer: 100%"]


def test_a_bar_that_ends_below_the_callers_own_is_not_seen_twice() -> None:
    program = f"""{SCRIPT}
import tqdm
with tqdm.tqdm(total=2, desc="outer") as outer:
    bar = Map(desc="inner")
    bar.end(20, 2.0)
    mark("between")
    outer.update(2)
"""
    shots = shown(program)
    assert [line[:11] for line in lines(shots["between"])] == ["inner: 100%"]
    assert [line[:11] for line in lines(shots["end"])] == ["inner: 100%", "outer: 100%"]


def test_what_tqdm_write_prints_stands_above_the_bar() -> None:
    program = f"""{SCRIPT}
import tqdm
bar = Map(desc="files")
bar.at(10, 1.0)
tqdm.tqdm.write("a message", file=sys.stderr)
bar.at(11, 2.0)
mark("on")
bar.end(20, 3.0)
"""
    message, bar = lines(shown(program)["on"])
    assert message == "a message"
    assert "11/20" in bar


# Tasks of items


@pytest.mark.parametrize(("columns", "claimed"), [(40, 40), (200, 200), (80, 0)])
def test_tasks_have_rows_below_the_bar_and_leave_none(columns: int, claimed: int) -> None:
    program = f"""{SCRIPT}
bar = Map(desc="files")
bar.at(1, 1.0)
bar.task("a", 1, 0.1, desc="short")
bar.task("a", 10, 0.2, desc="short", ended=True)
bar.task("b", 3, 1.0, desc="first")
bar.task("c", 5, 1.0)
bar.at(2, 2.0)
mark("two")
bar.task("b", 10, 2.0, desc="first", ended=True)
bar.task("c", 6, 2.0)
mark("one")
bar.task("d", 7, 1.0, desc="third", total=None)
mark("again")
bar.end(20, 10.0)
print("after")
"""
    shots = shown(program, columns, claimed=claimed)
    two, one, again, end = (lines(shots[name]) for name in ("two", "one", "again", "end"))
    assert [line.split(":")[0] for line in two] == ["files", "  first", "  item 7"]
    assert "30%|" in two[1]
    assert "3/10" in two[1]
    assert "5/10" in two[2]
    assert [line.split(":")[0] for line in one] == ["files", "", "  item 7"]
    assert "6/10" in one[2]
    assert [line.split(":")[0] for line in again] == ["files", "  third", "  item 7"]
    assert "7it" in again[1]
    assert all(len(line) < columns for shot in (two, one, again, end) for line in shot)
    assert "20/20" in end[0]
    assert end[1:] == ["after"]


def test_eight_tasks_have_rows_and_the_others_are_counted_until_there_is_room() -> None:
    program = f"""{SCRIPT}
bar = Map(desc="files")
for n in range(11):
    bar.task(str(n), n, 1.0, total=20, desc=f"job {{n}}")
bar.at(1, 1.0)
mark("many")
for n in range(4):
    bar.task(str(n), 20, 2.0, total=20, desc=f"job {{n}}", ended=True)
bar.at(2, 2.0)
mark("fewer")
bar.end(20, 10.0)
"""
    shots = shown(program, 100)
    many, fewer = lines(shots["many"]), lines(shots["fewer"])
    assert len(many) == 9
    assert "more tasks=3]" in many[0]
    assert sorted(line.split(":")[0] for line in many[1:]) == [f"  job {n}" for n in range(8)]
    assert "more tasks" not in fewer[0]
    assert sorted(line.split(":")[0] for line in fewer[1:] if line) == sorted(f"  job {n}" for n in range(4, 11))
    (end,) = lines(shots["end"])
    assert "20/20" in end


def test_tasks_of_two_maps_keep_to_rows_of_their_own() -> None:
    program = f"""{SCRIPT}
one, two = Map(desc="one"), Map(desc="two")
one.task("a", 1, 1.0, desc="of one")
two.task("a", 2, 1.0, desc="of two")
mark("both")
one.end(20, 2.0)
mark("second")
two.end(20, 3.0)
print("after")
"""
    shots = shown(program)
    assert {line.split(":")[0] for line in lines(shots["both"])} == {"one", "two", "  of one", "  of two"}
    assert [line.split(":")[0] for line in lines(shots["second"]) if line] == ["one", "two", "  of two"]
    assert [line.split(":")[0] for line in lines(shots["end"])] == ["one", "two", "after"]


def test_what_a_bar_that_sends_messages_shows_is_the_map_alone() -> None:
    program = f"""{SCRIPT}
from tqdm.std import tqdm as other
class Other(other):
    pass
bar = Map(Other, desc="files")
bar.task("a", 1, 1.0, desc="job")
mark("on")
bar.end(20, 2.0)
"""
    assert len(lines(shown(program)["on"])) == 1


@pytest.mark.parametrize("columns", [60, 200])
def test_rich_draws_maps_and_their_tasks_on_one_display(columns: int) -> None:
    program = f"""{SCRIPT}
def mark(name):  # past rich, which prints what is written meanwhile above its display
    sys.__stderr__.write(f"\\x1b]2;{{name}}\\x07")
    sys.__stderr__.flush()

one, two = Map("rich", desc="one"), Map("rich", desc="two")
one.task("a", 1, 1.0, desc="job")
one.at(5, 1.0, failed=2)
mark("both")
one.end(20, 2.0)
mark("second")
two.end(20, 3.0)
print("after")
"""
    shots = shown(program, columns)
    both, second, end = (lines(shots[name]) for name in ("both", "second", "end"))
    assert [line.split()[0] for line in both if line] == ["one", "two", "job"]
    assert "5/20" in both[0]
    assert "failed=2" in both[0]
    assert "1/10" in both[2]
    assert [line.split()[0] for line in second if line] == ["one", "two"]
    assert [line.split()[0] for line in end if line] == ["one", "two", "after"]
    assert "20/20" in end[0]
    assert "20/20" in end[1]


# Real maps


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_the_tasks_of_a_real_map_have_rows(backend: str) -> None:
    program = f"""
import sys, time
from anymap import pmap, track

def work(item):
    for row in track(range(8), desc="rows of %d" % item):
        time.sleep(0.1)

def mark(event):
    if event.seconds > 0.5 and not event.ended:
        sys.stderr.write("\x1b]2;on\x07")
        sys.stderr.flush()

from anymap.progress import TaskProgress
mark.wants = [TaskProgress]
pmap(work, range(2), backend={backend!r}, workers=2, chunksize=1, progress=[True, mark], desc="naps")
"""
    shots = shown(program)
    bar, *rows = [line for line in lines(shots["on"]) if line]
    assert bar.startswith("naps:")
    assert rows
    assert all(re.match(r"  rows of \d: +\d+%\|.*/8 \[", row) for row in rows)
    assert lines(shots["end"])[0].startswith("naps: 100%")


@pytest.mark.parametrize("backend", ["serial", "threads", "processes"])
def test_a_real_map_shows_itself_unasked(backend: str) -> None:
    program = f"""
import time
from anymap import pmap
if __name__ == "__main__":
    # As many as there are workers: more of them, however slow the start, might be advised to wait in threads.
    pmap(time.sleep, [0.7] * 2, backend="{backend}", workers=2, desc="naps")
"""
    shots = shown(program)
    (last,) = lines(shots["end"])
    assert last.startswith("naps: 100%|")
    assert "| 2/2 [00:0" in last
    assert shots.cursor == (1, 0)


def test_a_real_map_that_is_short_shows_nothing() -> None:
    shots = shown("from anymap import pmap\npmap(abs, range(100), backend='serial')")
    assert lines(shots["end"]) == [""]


def test_a_real_maps_seconds_pass_while_its_only_item_runs() -> None:
    program = """
import time
from anymap import pmap
pmap(time.sleep, [2.3], backend="threads", progress=True)
"""
    text = output(program, 80).decode()
    assert re.findall(r"0/1 \[(00:\d\d)<", text)[-1] == "00:02"
    assert re.findall(r"1/1 \[(00:\d\d)<", text)


NOISE = """
import logging, sys, time
from anymap import pmap

def make_noise(item):
    write = print if {name!r} != "threads" else lambda line: sys.stdout.write(line + chr(10))
    log = logging.getLogger("noise")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.propagate = False
    for number in range(50):
        write(f"<out {{item}} {{number}} {{'-' * 50}}>")
        log.warning("<log %d %d %s>", item, number, "-" * 50)
    time.sleep(0.03)

pmap(make_noise, range(60), backend={name!r}, workers=2, chunksize=1, progress=True)
"""


@pytest.mark.parametrize("name", ["threads", "processes", "pathos", "joblib"])
def test_no_line_that_workers_print_or_log_is_cut_or_lost_while_the_bar_is_drawn(name: str) -> None:
    text = output(NOISE.format(name=name), 80).decode()
    found = re.findall(r"<(out|log) (\d+) (\d+) -{50}>\r\n", text)
    assert sorted(found) == sorted(
        (how, str(item), str(number)) for how in ("out", "log") for item in range(60) for number in range(50)
    )
    bars = re.findall(r"\d+%\|.*?\| *(\d+)/60 ", text)
    assert len(set(bars)) > 3
    assert bars[-1] == "60"
    # Below it there may be a line of advice.
    assert "100%|" in [line for line in text.splitlines() if not line.startswith("anymap: ")][-1]


def test_retries_and_losses_stand_on_the_bar_of_a_real_map() -> None:
    program = """
import os
from anymap import pmap
done = set()
def fail_first(x):
    if x not in done:
        done.add(x)
        raise ValueError(x)
pmap(fail_first, range(3), backend="threads", workers=1, retries=1, progress=True)
pmap(lambda x: x or os._exit(1), range(3), backend="processes", workers=1, on_error="skip", progress=True)
"""
    retried, lost = lines(shown(program)["end"])
    assert "100%|" in retried
    assert "retried=3]" in retried
    assert "100%|" in lost
    assert "failed=1, lost=1]" in lost


LOGGING = r"""
import logging
root, named = logging.StreamHandler(), logging.StreamHandler(sys.stdout)
logging.basicConfig(handlers=[root], format="%(name)s: %(message)s")
named.setFormatter(logging.Formatter("named: %(message)s"))
logging.getLogger("app").addHandler(named)
logging.getLogger("app").propagate = False
untouched = dict(vars(root)), dict(vars(named)), dict(vars(logging.lastResort))
"""
RESTORED = "assert (dict(vars(root)), dict(vars(named)), dict(vars(logging.lastResort))) == untouched\n"


@pytest.mark.parametrize("columns", [40, 200])
@pytest.mark.parametrize("progress", ["True", "'rich'"])
def test_log_lines_stand_above_the_bar_whatever_logger_has_the_handler(columns: int, progress: str) -> None:
    if progress == "'rich'":
        pytest.importorskip("rich")
    program = f"""{SCRIPT}{LOGGING}
def mark(name, terminal=sys.stderr):  # not by what rich puts in its place
    terminal.write(f"\x1b]2;{{name}}\x07")
    terminal.flush()

bar = Map(progress={progress}, desc="files")
bar.at(3, 1.0)
logging.warning("one")
logging.getLogger("app").warning("two")
bar.at(5, 2.0)
logging.warning("three")
mark("on")
bar.end(20, 3.0)
{RESTORED}
logging.warning("four")
"""
    shots = shown(program, columns)
    *above, running = lines(shots["on"])
    assert above == ["root: one", "named: two", "root: three"]
    assert "5/20" in running
    *above, last, after = lines(shots["end"])
    assert above == ["root: one", "named: two", "root: three"]
    assert "20/20" in last
    assert after == "root: four"


@pytest.mark.parametrize("columns", [40, 200])
def test_what_workers_log_and_print_stands_above_the_bar(columns: int) -> None:
    program = f"""{SCRIPT}{LOGGING}
import os
os.environ["ANYMAP_OUTPUT"] = "forward"
from anymap import pmap

def work(item):
    logging.getLogger("app").warning("logged %d", item)
    print("printed", item)
    return item

tqdm.std.time = time = __import__("time").time
pmap(work, range(5), workers=1, progress=True, backend="processes")
{RESTORED}
"""
    *above, last = lines(shown(program, columns)["end"])
    assert above == [line for item in range(5) for line in (f"named: logged {item}", f"printed {item}")]
    assert "5/5" in last


PRINTS = """
import sys
from anymap import pmap, using

def work(item):
    sys.stdout.write("printed ")
    print(item)
    sys.stderr.write(f"rest {item}")
    return item

with using(output=OUTPUT):
    pmap(work, range(5), workers=1, progress=PROGRESS, backend=BACKEND)
"""


def printing(backend: str, progress: str = "True", output: str | None = None) -> str:
    return f"BACKEND, PROGRESS, OUTPUT = {backend!r}, {progress}, {output!r}\n{PRINTS}"


@pytest.mark.parametrize(
    ("name", "columns", "progress"),
    [
        pytest.param("serial", 80, "True", marks=pytest.mark.serial),
        pytest.param("threads", 80, "True", marks=pytest.mark.threads),
        pytest.param("processes", 40, "True", marks=pytest.mark.processes),
        pytest.param("processes", 80, "'rich'", marks=pytest.mark.processes),
        pytest.param("pathos", 80, "True", marks=pytest.mark.pathos),
        pytest.param("joblib", 80, "True", marks=pytest.mark.joblib),
        pytest.param("dask", 80, "True", marks=pytest.mark.dask),
    ],
)
def test_unasked_what_items_print_stands_above_the_bar(name: str, columns: int, progress: str) -> None:
    if "rich" in progress:
        pytest.importorskip("rich")
    shot = lines(shown(printing(name, progress), columns)["end"])
    *above, last = itertools.takewhile(lambda line: not line.startswith("anymap: "), shot)  # what follows is advice
    assert above == [line for item in range(5) for line in (f"printed {item}", f"rest {item}")]
    assert "5/5" in last


@pytest.mark.parametrize(("progress", "setting"), [("True", "inherit"), ("False", None)])
def test_without_a_bar_or_where_asked_what_workers_print_is_left_alone(progress: str, setting: str | None) -> None:
    text = output(printing("processes", progress, setting), 80).decode()
    # What is forwarded is whole lines; what is left alone is as it was written.
    assert "rest 0\r\n" not in text
    assert "rest 0" in text


def test_a_map_without_a_bar_prints_above_that_of_another_one() -> None:
    program = f"""{SCRIPT}
from anymap import pmap
bar = Map(desc="other")
bar.at(3, 1.0)
pmap(print, ["one", "two"], workers=1, progress=False, backend="processes")
bar.at(5, 2.0)
mark("both")
bar.end(20, 3.0)
"""
    *above, bar = lines(shown(program)["both"])
    assert (above, bar[:5]) == (["one", "two"], "other")


def test_a_log_line_between_two_bars_leaves_both_whole() -> None:
    program = f"""{SCRIPT}{LOGGING}
first, second = Map(desc="first"), Map(desc="second")
first.at(3, 1.0)
second.at(4, 1.0)
logging.warning("here")
first.at(5, 2.0)
mark("both")
second.end(20, 3.0)
logging.warning("there")
first.end(20, 3.0)
{RESTORED}
"""
    shots = shown(program)
    above, one, two = lines(shots["both"])
    assert (above, one[:5], two[:6]) == ("root: here", "first", "second")
    assert [line.split(":")[0] for line in lines(shots["end"])] == ["root", "second", "root", "first"]


def test_a_debugger_at_its_prompt_has_the_line_for_itself() -> None:
    program = """
import os, pdb, sys
from anymap import pmap
from anymap.progress._tqdm import Bar

class Typed:
    def readline(self):
        for bar in list(Bar._instances):
            bar.refresh()
        os.write(2, b"\x1b]2;prompt\x07")  # not through what keeps lines apart from the bar
        return "c\\n"

def debug(item):
    while not Bar._instances:
        pass
    if item == 1:
        pdb.Pdb(stdin=Typed(), stdout=sys.stdout).set_trace()
    return item

pmap(debug, range(3), backend="serial", progress=True)
"""
    shots = shown(program)
    assert not [line for line in shots["prompt"] if "%|" in line]
    assert "3/3" in lines(shots["end"])[-1]
