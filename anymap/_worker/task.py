"""What runs out there: one chunk at a time, everything captured, one answer.

A task is a callable without arguments that pickles small and raises nothing of the user's. Whatever engine carries
it, in whatever process, calling it runs the chunk and returns the answer.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import sys
import time
from collections import OrderedDict
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from anymap._config.scope import Inherited, Scope, around, scope
from anymap._errors import OUT_OF_MEMORY
from anymap._host import forks, handlers, parent_watch, status_board
from anymap._serialize import exceptions, object_table, packing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anymap._host.ticker import Ticker
    from anymap._serialize.modules import Shipment
    from anymap._serialize.object_table import ObjectTable
    from anymap._serialize.packing import Payload, Unpacked
    from anymap._serialize.share import Packed

PROTOCOL = 8
"""Raised by one whenever what tasks or answers look like changes."""

_WANT_OF_MEMORY = b"anymap: a worker ends because it has no memory left to answer with\n"

_CHECK_INTERVAL = 0.0002
"""Seconds of items between two looks at what else there is: whether the map has ended, or the chunk's time."""
_FIRST_CHECK_INTERVAL = 0.00002
"""Seconds until the first, which finds out whether the items are quick."""
_QUICK = 5e-7
"""Seconds. For items that take no longer, to look at the clock after each would cost as much again."""
_TICK = 0.01
"""Seconds between two ticks of the ticker that they are run by instead."""
_WORTH_A_TICK = 0.0003
"""Seconds of quick items that are left. A thread ticks, and to start one takes a third of that."""
_WORTH_A_LOOK = 0.001
"""Seconds of a chunk without a CPU. To find out whether it waited for one takes some twenty microseconds."""
_KEPT_MAPS = 4
"""How many maps a worker remembers the function of. Several may take turns on a shared worker."""


class Tells(NamedTuple):
    """What running code may tell its map, and how that gets there; see ``_in_worker.tell``."""

    topics: frozenset[str]
    """The topics that have a listener."""
    hear: Callable[[Any], object] | None = None
    """Takes a message at once, where memory is shared."""
    path: str | None = None
    """The pipe to the caller, if the caller is on this host."""
    tag: int = 0
    """What the caller knows the map by at the other end of the pipe."""


class MapSpec(NamedTuple):
    """What all tasks of one map have in common."""

    map_id: str
    function: Any
    """The function itself where memory is shared, else its payload."""
    star: bool
    """Rows are tuples, to be spread over the function's parameters."""
    board: Any
    """A path; the board's memory itself where memory is shared; ``None`` where the caller's board cannot be reached."""
    channel: Any
    """A :class:`~anymap.backends.base.Channel` to tell by how far a chunk is; ``None`` where there is no listener."""
    timeout: float | None
    """Seconds after which the caller gives an item up."""
    spool: str | None
    """The folder for large results; ``None`` where no folder is shared."""
    parent: int
    """The caller's process id; 0 where that is on another host or the worker is not ours to look after."""
    shares_memory: bool
    inline: bool
    inherited: Inherited
    """What holds for maps inside of this one."""
    places: Any = None
    """How its workers agree on their indices, see ``_in_worker.worker_index``: between threads the list of owners, between
    processes of this host how many there are, elsewhere what finds out. ``None``: they cannot."""
    tells: Tells | None = None
    """``None`` where there is no listener."""
    around: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
    """A function of ours that wraps the map's, out there."""
    outer: TaskContext | None = None
    """Where memory is shared: the context of the task that called the map, if a task did."""
    environment: Any = None
    """What items find around them; see ``_environment``. ``None``: what is there."""


class TaskContext:
    """A thread while it runs a task. Its index among the map's workers is only sought when it is asked for."""

    __slots__ = ("board", "durations", "index", "kept", "leave", "offset", "outbox", "stream", "task", "values")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.board: status_board.Buffer | None = None
        self.offset = 0
        """Where on the board it says at which item the chunk is."""
        self.values: list[Any] | None = None
        """Where memory is shared, while rows are run: the results so far. Their number says at which item the chunk is."""
        self.index: int | None = None
        self.durations: dict[int, float] = {}
        """Seconds that each row took, by its position; empty where no sink wants to know."""
        self.outbox: Any = None
        """What was told and is still here; made when there is something."""
        self.stream: tuple[int, Any] | None = None
        """An item that has asked for its random numbers, and their generator."""
        self.kept: dict[int, str] | None = None
        """What items that failed have printed, by position, where it is kept."""
        self.leave: Callable[[], object] | None = None
        """To be called when the chunk has ended."""

    def item(self) -> int | None:
        """Return which item of the map is being run, counted from 0; ``None``: just now none."""
        position = self.position()
        return self.task.start + position if 0 <= position < self.task.count else None

    def position(self) -> int:
        if self.values is not None:
            return len(self.values)
        return -1 if self.board is None else status_board.read_position(self.board, self.offset)

    def keep_output(self, text: str) -> None:
        """Keep what the running item has printed, for the answer."""
        self.kept = {**(self.kept or {}), self.position(): text}

    @property
    def spec(self) -> MapSpec:
        return self.task.spec


task_context: ContextVar[TaskContext | None] = ContextVar("anymap_seat", default=None)
task_contexts: list[TaskContext] = []
"""Those of this process whose map listens, but for maps that share its memory: code in threads of its own finds its own here."""


class Answer(NamedTuple):
    """What became of a chunk's first ``done`` rows; the rest have not been started."""

    done: int
    values: Any
    """A list where memory is shared, else a payload; failed and missing values are ``None``."""
    failures: list[tuple[int, Any, float]]
    """Position, exception (encoded unless memory is shared) and seconds of each row that failed."""
    seconds: float
    longest: float
    """How long the slowest row took, in seconds."""
    cpu: float
    """What of ``seconds`` was spent on a CPU."""
    worker: str
    slot: int
    """The task's, so that an answer that was mixed up with another is found out."""
    broken: Any = None
    """Why there is no answer: as a rule, because the function could not be loaded there."""
    slowest: int = 0
    """The position of the row that took the longest."""
    told: list[bytes] | None = None
    """Letters of the items to their map that nothing else has brought home; see ``_in_worker.tell``."""
    durations: dict[int, float] | None = None
    """Seconds that each row took, by its position, where a sink wants to know."""
    kept: dict[int, str] | None = None
    """What items that failed have printed, by position, where it is kept."""
    queued: float | None = None
    """What of ``seconds`` they were ready to run and had no CPU; ``None`` where the system does not say."""


class Task:
    """One chunk, ready to run anywhere."""

    __slots__ = ("budget", "classes", "count", "may_fail", "most", "rows", "slot", "spec", "start")

    def __init__(
        self,
        spec: MapSpec,
        rows: Any,
        count: int,
        slot: int,
        budget: float | None,
        classes: dict[int, bytes],
        start: int = 0,
        may_fail: int | None = None,
    ) -> None:
        self.spec = spec
        self.rows = rows
        self.start = start
        """The place of the first row in the map's input."""
        self.count = count
        self.most = count
        """So many rows may be run; a worker process that is to be replaced soon sets it."""
        self.slot = slot
        self.budget = budget
        self.classes = classes
        self.may_fail = may_fail
        """So many rows may fail; the chunk ends at the next that does. ``None``: all of them."""

    def __call__(self) -> Answer:
        return _run(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # As bytes: engines that pickle with dill or cloudpickle would walk through the whole task.
        return load_task, (PROTOCOL, pickle.dumps((self.spec, self.rows, *self._rest()), 5))

    def replaced(self, spec: MapSpec, rows: Any) -> Self:
        """Return the same task with another spec and other rows."""
        return type(self)(spec, rows, *self._rest())

    def _rest(self) -> tuple[Any, ...]:
        return self.count, self.slot, self.budget, self.classes, self.start, self.may_fail


def load_task(protocol: int, data: bytes) -> Task:
    if protocol != PROTOCOL:
        message = f"this worker speaks protocol {PROTOCOL}, the caller {protocol}: install the same anymap on both"
        raise RuntimeError(message)
    return Task(*pickle.loads(data))


def dialect() -> tuple[int, int, int]:
    """Return what caller and worker must have in common: the protocol, and the Python that code is compiled for."""
    return PROTOCOL, *sys.version_info[:2]


def describe_mismatch(caller: tuple[int, int, int], worker: tuple[int, int, int]) -> str:
    protocols = f"the caller has Python {caller[1]}.{caller[2]} and anymap's protocol {caller[0]}"
    return f"{protocols}, the worker {worker[1]}.{worker[2]} and {worker[0]}: install the same on both"


def run_apart(
    spoken: tuple[int, int, int],
    task: Task,
    function: Payload | None,
    shipment: Shipment | None,
    shared: dict[str, Packed],
) -> bytes:
    """Run a task that another host sent; return the pickled answer.

    What other tasks need too came apart from it: the modules, the function if it is large, what is shared between maps.
    In the place of the data of each is a list of its parts.
    """
    if spoken != dialect():
        raise RuntimeError(describe_mismatch(spoken, dialect()))
    if shipment is not None:
        from anymap._serialize import modules  # noqa: PLC0415 - as with heartbeat

        modules.install(shipment._replace(archive=shipment.archive[0]))  # type: ignore[arg-type]
    if function is not None:
        data, *buffers = function.data
        task.spec = task.spec._replace(function=function._replace(data=data, buffers=buffers))
    if not shared:
        return pickle.dumps(task(), 5)
    from anymap._serialize import share as _share  # noqa: PLC0415 - as with heartbeat

    with _share.present(shared):
        return pickle.dumps(task(), 5)


def run_task(data: bytes) -> bytes:
    """Run a task in a worker: one of an engine that takes no more than functions and bytes.

    ``data`` is what :meth:`anymap.backends.TaskCodec.encode` returned; its ``decode`` takes what this returns.
    """
    file = io.BytesIO(data)
    spoken, path, shipped = pickle.load(file)
    if spoken != dialect():
        raise RuntimeError(describe_mismatch(spoken, dialect()))
    if path or shipped:
        from anymap._serialize import modules  # noqa: PLC0415 - as with heartbeat

        modules.extend_path(path)
        if shipped:
            modules.install(modules.Shipment(*shipped))
    return pickle.dumps(pickle.load(file)(), 5)


class _Context(NamedTuple):
    """What a worker keeps of a map between its chunks."""

    func: Callable[..., Any]
    classes: ObjectTable
    board: status_board.Buffer | None


_contexts: OrderedDict[str, _Context] = OrderedDict()
_boards: OrderedDict[str, status_board.Buffer] = OrderedDict()
_contexts_lock = forks.Lock()
_settled = 0
"""The process that has been made a good worker: a fork of it has not."""


def _run(task: Task) -> Answer:
    spec = task.spec
    if spec.shares_memory:
        return _answer_in_memory(task)
    if spec.parent:
        set_up_process(spec.parent)
    try:
        with _inside(task) as taken:
            if spec.tells is not None and spec.board is not None:
                # What is told while the function is loaded is to be waited for, too.
                taken.board, taken.offset = _attached(spec.board), status_board.item_offset(task.slot)
            if spec.environment is None:
                return _with_extras(_answer_or_end(task, _context(task)), taken)
            spec.environment.settle()
            with spec.environment.over(taken):
                return _with_extras(_answer_or_end(task, _context(task)), taken)
    except BaseException as exc:  # noqa: BLE001 - loading runs the user's code; and an engine may not survive an error
        exc.__traceback__ = exceptions.users_part(exc.__traceback__) or exc.__traceback__
        broken = exceptions.encode(exc, cloudpickle_dumps)
        return Answer(0, None, [], 0.0, 0.0, 0.0, worker_name(spec), task.slot, broken)


def _with_extras(answer: Answer, taken: TaskContext) -> Answer:
    """Add to an answer what most are without."""
    if taken.outbox is None and not taken.durations and taken.kept is None:
        return answer
    told = taken.outbox and taken.outbox.empty()
    return answer._replace(told=told, durations=taken.durations or None, kept=taken.kept)


def _answer_in_memory(task: Task) -> Answer:
    with _inside(task) as taken:
        ran = _run_rows(task, task.spec.function, task.rows, task.spec.board, task.slot)
        return _with_extras(_made_of(task, ran, ran.values, ran.failures), taken)


def _made_of(task: Task, ran: _Ran, values: Any, failures: list[tuple[int, Any, float]]) -> Answer:
    worker = worker_name(task.spec)
    return Answer(
        ran.done,
        values,
        failures,
        ran.seconds,
        ran.longest,
        ran.cpu,
        worker,
        task.slot,
        slowest=ran.slowest,
        queued=ran.queued,
    )


def _answer_or_end(task: Task, context: _Context) -> Answer:
    """Answer. A worker that has no memory left for that ends, and is replaced."""
    try:
        answer = _answer_in_bytes(task, context, _rows(task))
        packing.prove_memory_to_send(answer.values)
    except MemoryError:
        if task.spec.parent in {0, os.getpid()}:
            raise
        if task.count == 1 and context.board is not None:
            # It did not run any more, but it is to blame.
            status_board.write_item(context.board, status_board.item_offset(task.slot), 0, time.monotonic())
        end_for_want_of_memory()
    return answer


def end_for_want_of_memory() -> NoReturn:
    """End this process, in which nothing can be relied on any more, without needing memory for it."""
    os.write(2, _WANT_OF_MEMORY)
    os._exit(OUT_OF_MEMORY)


def _rows(task: Task) -> list[Any] | Unpacked | _NotLoaded:
    try:
        return packing.unpack(task.rows)
    except MemoryError as exc:
        if task.count > 1:  # the item that needs too much of it is found when they come one by one
            raise
        return _NotLoaded(exc)


class _NotLoaded:
    """Stands for the row of a chunk that could not be loaded."""

    def __init__(self, reason: MemoryError) -> None:
        self._reason = reason

    def __getitem__(self, position: int) -> NoReturn:
        raise self._reason


def _answer_in_bytes(task: Task, context: _Context, rows: list[Any] | Unpacked | _NotLoaded) -> Answer:
    ran = _run_on_board(task, context, rows)

    def dumps(value: Any) -> bytes:
        payload, refused = packing.pack([value], context.classes)
        if refused:
            raise refused[0]
        data: bytes = pickle.dumps(packing.unpack(payload)[0]) if payload.buffers else payload.data
        return data

    payload, refused = _pack_results(ran.values, context.classes, to_file=task.spec.spool is not None)
    failures = [(position, exceptions.encode(exc, dumps), seconds) for position, exc, seconds in ran.failures]
    failures += [(position, exceptions.encode(exc, dumps), 0.0) for position, exc in refused.items()]
    values = packing.spill(payload, task.spec.spool)
    return _made_of(task, ran, values, failures)


def _run_on_board(task: Task, context: _Context, rows: list[Any] | Unpacked | _NotLoaded) -> _Ran:
    if context.board is not None:
        return _run_rows(task, context.func, rows, context.board, task.slot)
    board = bytearray(status_board.HEADER + status_board.SLOT)
    from anymap._worker import heartbeat  # noqa: PLC0415 - what workers of this host do without, they need not import

    with heartbeat.beating(task, board) as outbox:
        if outbox is not None and (taken := task_context.get()) is not None:
            earlier, taken.outbox = taken.outbox, outbox
            for letter in earlier.empty() if earlier is not None else ():
                outbox.put(letter)
        return _run_rows(task, context.func, rows, board, 0)


def _pack_results(values: list[Any], classes: ObjectTable, *, to_file: bool) -> tuple[Payload, dict[int, Exception]]:
    payload, refused = packing.pack(values, classes, to_file=to_file)
    return payload, {position: _blame("result", exc) for position, exc in refused.items()}


def _blame(what: str, exc: Exception) -> Exception:
    renamed = type(exc)(f"the {what} cannot be sent back: {exc}")
    renamed.__cause__ = exc.__cause__
    return renamed


def cloudpickle_dumps(value: Any) -> bytes:
    from anymap._host import by_value  # noqa: PLC0415 - only wanted when something went wrong

    return by_value.dumps(value)


class _Ran(NamedTuple):
    done: int
    values: list[Any]
    failures: list[tuple[int, Any, float]]
    seconds: float
    longest: float
    slowest: int
    cpu: float
    queued: float | None


def _run_rows(task: Task, func: Callable[..., Any], rows: Any, board: status_board.Buffer, slot: int) -> _Ran:
    environment = task.spec.environment
    if environment is None:
        return _run_each(task, func, rows, board, slot)
    with environment.inside():
        return _run_each(task, environment.around(func), rows, board, slot)


def _run_each(task: Task, func: Callable[..., Any], rows: Any, board: status_board.Buffer, slot: int) -> _Ran:
    """Run the rows one after another until the chunk, its time budget or the map ends."""
    spec, offset = task.spec, status_board.item_offset(slot)
    status_board.sign(board, slot)
    values: list[Any] = []
    failures: list[tuple[int, Any, float]] = []
    _enter_slot(board, offset, values if spec.shares_memory else None)
    call_some = _caller(task, func, rows, board, offset)
    may_fail = task.count if task.may_fail is None else task.may_fail
    cpu = time.thread_time()
    watch = _Watch(task, board, offset, values)
    try:
        goes_on = watch.look()
        while goes_on and len(values) < task.most:
            if spec.inline:
                handlers.deliver()  # what is raised here is no item's error
            try:
                call_some(values, watch)
                goes_on = False
            except BaseException as exc:  # noqa: BLE001 - it is the item's outcome, whatever it is
                watch.end_if_fork(1)
                _let_interrupts_pass(exc, spec)
                values.append(None)
                goes_on = watch.look()
                exc.__traceback__ = exceptions.users_part(exc.__traceback__)
                failures.append((len(values) - 1, exc, watch.latest))
                # What there is no memory for here may find some elsewhere.
                if len(failures) > may_fail or isinstance(exc, MemoryError):
                    break
    finally:
        watch.close()
    ended = watch.measure()
    # From here on no item is running, though the answer is still to be packed and sent.
    status_board.write_item(board, offset, status_board.position_at_end(task.count, len(values)), ended)
    _enter_slot(board, offset, None)
    seconds, cpu = ended - watch.began, time.thread_time() - cpu
    queued = _waited_for_a_cpu(seconds - cpu)
    return _Ran(len(values), values, failures, seconds, watch.longest, watch.slowest, cpu, queued)


def _waited_for_a_cpu(idle: float) -> float | None:
    """Return how much of the time without a CPU was spent waiting for one; see ``run_queue``."""
    if idle < _WORTH_A_LOOK:
        return 0.0
    from anymap._host import run_queue  # noqa: PLC0415 - where items compute on a machine of their own, it is not needed

    return run_queue.seconds_within(idle)


class _Watch:
    """Looks up from a chunk's rows now and then: at the time, at the order to stop, and to say on the board where it is.

    As a rule it does so once a check interval has gone by, for which a clock is read after each row. Where they are too quick for
    that, they are run until the ticker ticks.
    """

    __slots__ = (
        "_board",
        "_check_interval",
        "_end",
        "_is_fork",
        "_known",
        "_may_hear",
        "_mean",
        "_most",
        "_offset",
        "_timeout",
        "_uses_ticker",
        "_values",
        "began",
        "is_quick",
        "latest",
        "longest",
        "rung",
        "since",
        "slowest",
        "until",
    )

    def __init__(self, task: Task, board: status_board.Buffer, offset: int, values: list[Any]) -> None:
        self._board = board
        self._offset = offset
        self._values = values
        self._timeout = task.spec.timeout
        # With a timeout each item's own beginning counts.
        self._check_interval = _FIRST_CHECK_INTERVAL if self._timeout is None else 0.0
        self._known = 0
        """Rows that had ended when it last looked."""
        self._most = task.most
        self._mean = 0.0
        """Seconds per row, of those that ended between the last two looks."""
        self.began = self.since = time.monotonic()
        """When it last looked."""
        self._end = float("inf") if task.budget is None else self.began + task.budget
        self.latest = 0.0
        """Seconds that the row before the last look took, as well as that can be told."""
        self.longest = 0.0
        """Seconds that the slowest row took."""
        self.slowest = 0
        # A task in the caller's own thread starts no other thread.
        self._may_hear = self._timeout is None and not task.spec.inline
        self._uses_ticker = False
        self._is_fork = False
        self.until = 0.0
        """When to look again."""
        self.is_quick = False
        """The next rows are to be run until the ticker ticks."""
        self.rung: float | None = None
        """When the ticker first ticked since the last look."""
        if not task.spec.inline:  # in the caller's own thread a fork goes on with the loop, as the caller does
            _watches.add(self)

    def look(self) -> bool:
        """Look up, and set until when not to do so again; return whether another row is to begin."""
        self.end_if_fork(0)
        before, now = self.since, self.measure()
        if now > self._end or self._board[0]:
            return False
        status_board.write_item(self._board, self._offset, self._known, now)
        # The caller gives up an item that is out of time, and others get the rest of its chunk. It may have done so up to
        # the moment in which the board told it that the item has ended.
        has_ended = self.since != before
        if has_ended and self._timeout is not None and time.monotonic() - before > self._timeout:
            return False
        if has_ended and self._timeout is None:
            self._check_interval = _CHECK_INTERVAL
            self.is_quick = not self.is_quick and self._is_worth_a_tick() and self._uses_ticker_now()
        self.until = now + self._check_interval
        return True

    def measure(self) -> float:
        """Take in how long the rows have taken that have ended since the last time; return what time it is."""
        now, known = time.monotonic(), self._known
        self._known = len(self._values)
        if self._known == known:
            return now
        seconds, self.since = now - self.since, now
        self._mean = seconds / (self._known - known)
        self.latest = self._longest_of(seconds, now)
        if self.latest > self.longest:
            self.longest, self.slowest = self.latest, self._known - 1
        self.rung = None
        return now

    def _longest_of(self, seconds: float, now: float) -> float:
        """Of several rows only the last can have taken long: none was begun after the check interval was over, or the ticker ticked."""
        if self.is_quick:
            return self._mean if self.rung is None else max(self._mean, now - self.rung)
        return self._mean if seconds <= 2 * self._check_interval else seconds

    def _is_worth_a_tick(self) -> bool:
        return self._may_hear and self._mean <= _QUICK and (self._most - self._known) * self._mean >= _WORTH_A_TICK

    def _uses_ticker_now(self) -> bool:
        if not self._uses_ticker:
            try:
                _ticker().enter(self)
            except RuntimeError:  # no thread can be started
                self._may_hear = False
                return False
            self._uses_ticker = True
        return True

    def hear(self) -> None:
        """The ticker ticks."""
        if self.rung is None:
            self.rung = time.monotonic()

    def mark_as_fork(self) -> None:
        """In a fork that an item makes: have this chunk end when the item does."""
        self._is_fork = True
        self.until = 0.0
        self.hear()

    def end_if_fork(self, exitcode: int) -> None:
        """End this process if it is the child of an item: the parent answers for the item, and runs the rest."""
        if self._is_fork:
            os._exit(exitcode)

    def close(self) -> None:
        """Follow the ticker no more."""
        _watches.discard(self)
        if self._uses_ticker:
            _ticker().leave(self)


_watches: set[_Watch] = set()
"""Those of the chunks that this process runs."""


def _mark_forked_chunks() -> None:
    for watch in _watches:
        watch.mark_as_fork()
    _watches.clear()


forks.in_child(_mark_forked_chunks)

_the_ticker: Ticker[_Watch] | None = None


def _ticker() -> Ticker[_Watch]:
    global _the_ticker  # noqa: PLW0603 - the thread that rings it is the process's
    if _the_ticker is None:
        from anymap._host.ticker import Ticker  # noqa: PLC0415 - many a worker never has such items

        with _contexts_lock:
            _the_ticker = _the_ticker or Ticker(_Watch.hear, _TICK, "anymap-bell")
    return _the_ticker


def _enter_slot(board: status_board.Buffer, offset: int, values: list[Any] | None) -> None:
    """Record the current item of this thread."""
    if (taken := task_context.get()) is not None:
        taken.board, taken.offset, taken.values = board, offset, values


def _caller(
    task: Task, func: Callable[..., Any], rows: Any, board: status_board.Buffer, offset: int
) -> Callable[[list[Any], _Watch], None]:
    """Return what calls ``func`` with row after row, adds what it returns to a list, and looks up at certain times."""
    spec = task.spec
    if spec.around is not None:
        func = spec.around(func)
    if spec.inline:
        return partial(handlers.let_in, partial(_call_some, func, spec.star, iter(rows)))
    if spec.shares_memory:
        # With shared memory a dead worker ends the whole process, and no caller is left to read the board.
        return partial(_call_some, func, spec.star, iter(rows))
    # A range makes its numbers one by one more slowly than all at once.
    rows = list(rows) if isinstance(rows, range) else rows
    return partial(_call_some_on_board, func, spec.star, rows, task.most, status_board.place(board, offset))


# All that is done for each item is in the loops of these two: they are what a map of many quick items costs.


def _call_some(
    func: Callable[..., Any],
    star: bool,
    rows: Iterator[Any],
    values: list[Any],
    watch: _Watch,
) -> None:
    clock = time.monotonic
    for row in rows:
        values.append(func(*row) if star else func(row))
        if clock() < watch.until:
            continue
        if not watch.look():
            break
        if watch.is_quick:
            for row in rows:  # noqa: PLW2901 - the next ones
                values.append(func(*row) if star else func(row))
                if watch.rung is not None:
                    break
            if not watch.look():
                break


def _call_some_on_board(
    func: Callable[..., Any],
    star: bool,
    rows: Any,
    most: int,
    place: memoryview,
    values: list[Any],
    watch: _Watch,
) -> None:
    clock, positions = time.monotonic, iter(range(len(values), most))
    for position in positions:
        place[0] = position
        row = rows[position]
        values.append(func(*row) if star else func(row))
        if clock() < watch.until:
            continue
        if not watch.look():
            break
        if watch.is_quick:
            for position in positions:  # noqa: PLW2901 - the next ones
                place[0] = position
                row = rows[position]
                values.append(func(*row) if star else func(row))
                if watch.rung is not None:
                    break
            if not watch.look():
                break


def _let_interrupts_pass(exc: BaseException, spec: MapSpec) -> None:
    # In the caller's own thread it is the caller's Ctrl-C, not the item's error; so is what comes between two items.
    if spec.inline and (isinstance(exc, KeyboardInterrupt) or exceptions.raised_by_handler(exc)):
        raise exc


def _context(task: Task) -> _Context:
    spec = task.spec
    with _contexts_lock:
        context = _contexts.get(spec.map_id)
        if context is not None:
            _contexts.move_to_end(spec.map_id)
    if context is None:
        context = _load_context(spec, task.classes)
        with _contexts_lock:
            _contexts[spec.map_id] = context
            while len(_contexts) > _KEPT_MAPS:
                _contexts.popitem(last=False)
    context.classes.blobs.update(task.classes)
    return context


def _load_context(spec: MapSpec, blobs: dict[int, bytes]) -> _Context:
    object_table.forget_before_a_map()
    classes = object_table.receiver_table(spec.map_id)
    classes.blobs.update(blobs)
    func = packing.unpack_function(spec.function, classes)
    return _Context(func, classes, _attached(spec.board) if spec.board else None)


def _attached(path: str) -> status_board.Buffer:
    """Return the board at ``path``. Maps that follow each other share one."""
    with _contexts_lock:
        board = _boards.get(path)
        if board is None:
            board = _boards[path] = status_board.attach(path)
            while len(_boards) > _KEPT_MAPS:
                _boards.popitem(last=False)
    return board


@contextlib.contextmanager
def _inside(task: Task) -> Iterator[TaskContext]:
    spec = task.spec
    taken = TaskContext(task)
    token, place = scope.set(Scope((), spec.inherited)), task_context.set(taken)
    is_found = spec.tells is not None and not spec.shares_memory
    if is_found:
        task_contexts.append(taken)
    if not spec.shares_memory:
        around.append(spec.inherited)
    try:
        yield taken
    finally:
        if not spec.shares_memory:
            around.remove(spec.inherited)
        if is_found:
            task_contexts.remove(taken)
        scope.reset(token)
        task_context.reset(place)
        if taken.leave is not None:
            taken.leave()


def serves() -> bool:
    """Tell whether this process works for maps of another one."""
    # An engine of the caller's may have workers in the caller's process.
    return not all(map(object_table.is_from_here, list(_contexts)))


def set_up_process(parent: int) -> None:
    """Make this process a good worker of ``parent``, the first time it runs something for it."""
    global _settled  # noqa: PLW0603 - a fact about the process
    if os.getpid() in {parent, _settled}:
        return
    _settled = os.getpid()
    # Ctrl-C goes to the whole group; what follows from it is the caller's to decide.
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent_watch.end_with(parent)


def worker_name(spec: MapSpec) -> str:
    if spec.board is not None:
        return str(os.getpid())
    import socket  # noqa: PLC0415 - as with heartbeat

    return f"{os.getpid()} on {socket.gethostname()}"
