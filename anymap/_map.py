"""``pmap``: the face of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Required, TypeAlias, TypedDict, TypeVar, Unpack, overload

from anymap._engine.raising import in_one_frame
from anymap._engine.results import MapIterator, collect, iterate, run_of
from anymap._engine.sources import rows_of
from anymap._hints import unexpected
from anymap._host.handlers import held_back
from anymap._plan.make import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._engine.plan import OnError, Retry
    from anymap._plan.live import Engine
    from anymap.backends.base import Backend
    from anymap.progress import ProgressOption

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
R = TypeVar("R")

Either: TypeAlias = list[R] | MapIterator[R]
"""What comes back where ``lazy`` is only known when the program runs."""
Items: TypeAlias = "Iterable[Any]"
ResultsOnly = Literal["raise", "skip", "group"]
"""The values of ``on_error`` that put no exceptions among the results."""


class Options(TypedDict, total=False):
    """The keywords of :func:`pmap` that have no say in what type it returns; explained there."""

    backend: str | Backend | type[Backend] | Engine | None
    workers: int | str | None
    ordered: bool
    prefer: Literal["threads", "processes"] | None
    require: Literal["shared_memory"] | None
    progress: ProgressOption
    desc: str | None
    total: int | None
    max_failures: int | str | None
    retries: int | Retry | None
    timeout: float | None
    chunksize: int | None
    window: int | None
    seed: int | None


class ToList(Options, total=False):
    lazy: Literal[False]
    on_error: ResultsOnly


class ToListWithErrors(Options, total=False):
    lazy: Literal[False]
    on_error: Required[OnError]


class ToIterator(Options, total=False):
    lazy: Required[Literal[True]]
    on_error: ResultsOnly


class ToIteratorWithErrors(Options, total=False):
    lazy: Required[Literal[True]]
    on_error: Required[OnError]


class ToEither(Options, total=False):
    lazy: Required[bool]
    on_error: ResultsOnly


class ToEitherWithErrors(Options, total=False):
    lazy: Required[bool]
    on_error: Required[OnError]


# Each of these six for one, two and three iterables, and for four or more, whose items' types are not compared. A
# catch-all for any number would take every call that the others have rejected.
# fmt: off
@overload
def pmap(func: Callable[[A], R], a: Iterable[A], /,
         **options: Unpack[ToList]) -> list[R]: ...
@overload
def pmap(func: Callable[[A], R], a: Iterable[A], /,
         **options: Unpack[ToListWithErrors]) -> list[R | Exception]: ...
@overload
def pmap(func: Callable[[A], R], a: Iterable[A], /,
         **options: Unpack[ToIterator]) -> MapIterator[R]: ...
@overload
def pmap(func: Callable[[A], R], a: Iterable[A], /,
         **options: Unpack[ToIteratorWithErrors]) -> MapIterator[R | Exception]: ...
@overload
def pmap(func: Callable[[A], R], a: Iterable[A], /,
         **options: Unpack[ToEither]) -> Either[R]: ...
@overload
def pmap(func: Callable[[A], R], a: Iterable[A], /,
         **options: Unpack[ToEitherWithErrors]) -> Either[R | Exception]: ...
@overload
def pmap(func: Callable[[A, B], R], a: Iterable[A], b: Iterable[B], /,
         **options: Unpack[ToList]) -> list[R]: ...
@overload
def pmap(func: Callable[[A, B], R], a: Iterable[A], b: Iterable[B], /,
         **options: Unpack[ToListWithErrors]) -> list[R | Exception]: ...
@overload
def pmap(func: Callable[[A, B], R], a: Iterable[A], b: Iterable[B], /,
         **options: Unpack[ToIterator]) -> MapIterator[R]: ...
@overload
def pmap(func: Callable[[A, B], R], a: Iterable[A], b: Iterable[B], /,
         **options: Unpack[ToIteratorWithErrors]) -> MapIterator[R | Exception]: ...
@overload
def pmap(func: Callable[[A, B], R], a: Iterable[A], b: Iterable[B], /,
         **options: Unpack[ToEither]) -> Either[R]: ...
@overload
def pmap(func: Callable[[A, B], R], a: Iterable[A], b: Iterable[B], /,
         **options: Unpack[ToEitherWithErrors]) -> Either[R | Exception]: ...
@overload
def pmap(func: Callable[[A, B, C], R], a: Iterable[A], b: Iterable[B], c: Iterable[C], /,
         **options: Unpack[ToList]) -> list[R]: ...
@overload
def pmap(func: Callable[[A, B, C], R], a: Iterable[A], b: Iterable[B], c: Iterable[C], /,
         **options: Unpack[ToListWithErrors]) -> list[R | Exception]: ...
@overload
def pmap(func: Callable[[A, B, C], R], a: Iterable[A], b: Iterable[B], c: Iterable[C], /,
         **options: Unpack[ToIterator]) -> MapIterator[R]: ...
@overload
def pmap(func: Callable[[A, B, C], R], a: Iterable[A], b: Iterable[B], c: Iterable[C], /,
         **options: Unpack[ToIteratorWithErrors]) -> MapIterator[R | Exception]: ...
@overload
def pmap(func: Callable[[A, B, C], R], a: Iterable[A], b: Iterable[B], c: Iterable[C], /,
         **options: Unpack[ToEither]) -> Either[R]: ...
@overload
def pmap(func: Callable[[A, B, C], R], a: Iterable[A], b: Iterable[B], c: Iterable[C], /,
         **options: Unpack[ToEitherWithErrors]) -> Either[R | Exception]: ...
@overload
def pmap(func: Callable[..., R], a: Items, b: Items, c: Items, d: Items, /, *more: Items,
         **options: Unpack[ToList]) -> list[R]: ...
@overload
def pmap(func: Callable[..., R], a: Items, b: Items, c: Items, d: Items, /, *more: Items,
         **options: Unpack[ToListWithErrors]) -> list[R | Exception]: ...
@overload
def pmap(func: Callable[..., R], a: Items, b: Items, c: Items, d: Items, /, *more: Items,
         **options: Unpack[ToIterator]) -> MapIterator[R]: ...
@overload
def pmap(func: Callable[..., R], a: Items, b: Items, c: Items, d: Items, /, *more: Items,
         **options: Unpack[ToIteratorWithErrors]) -> MapIterator[R | Exception]: ...
@overload
def pmap(func: Callable[..., R], a: Items, b: Items, c: Items, d: Items, /, *more: Items,
         **options: Unpack[ToEither]) -> Either[R]: ...
@overload
def pmap(func: Callable[..., R], a: Items, b: Items, c: Items, d: Items, /, *more: Items,
         **options: Unpack[ToEitherWithErrors]) -> Either[R | Exception]: ...
# fmt: on


@in_one_frame
def pmap(  # noqa: D417 - unknown keywords are refused
    func: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    backend: str | Backend | type[Backend] | Engine | None = None,
    workers: int | str | None = None,
    ordered: bool = True,
    lazy: bool = False,
    prefer: Literal["threads", "processes"] | None = None,
    require: Literal["shared_memory"] | None = None,
    progress: ProgressOption = None,
    desc: str | None = None,
    total: int | None = None,
    on_error: OnError = "raise",
    max_failures: int | str | None = None,
    retries: int | Retry | None = None,
    timeout: float | None = None,
    chunksize: int | None = None,
    window: int | None = None,
    seed: int | None = None,
    **unknown: Any,
) -> Any:
    """Apply ``func`` to every item, on whatever backend the caller or the user has chosen.

    >>> from anymap import pmap
    >>> pmap(lambda x, y: x * y, range(4), [10, 20, 30])
    [0, 20, 60]

    As with the builtin ``map``, several iterables are zipped and the shortest ends it. ``func`` may be anything that
    can be called: a lambda, a closure, a bound method, a function typed into a notebook. Where it runs in another
    process it works on copies, of itself as of the items: what it changes there, the caller does not see.

    Left alone, the map runs in processes, one for each CPU that this process may use. What a call leaves open, its user
    may set: by variables such as ``ANYMAP_BACKEND``, in a file, or in code (:class:`using`, :func:`configure`).
    ``ANYMAP_FORCE_BACKEND=serial`` overrides even what the code asks for. A map inside another one runs where it is
    called, one item after another, unless it names a backend or the setting ``nested`` says otherwise.

    Args:
        func: Takes one item, or one of each iterable.
        *iterables: What to map over. Read in the caller's thread, and only as fast as there is room; may be endless if
            ``lazy``. A single list, tuple or range is taken as it is when the map begins, unless ``lazy`` or ``window``
            are given.
        backend: Where to run: a name that :func:`available_backends` lists, such as ``"threads"``, or an instance with
            options, such as ``Processes(start_method="fork")``; or an engine that you have already: a
            ``concurrent.futures.Executor``, a ``distributed.Client``, a pool of ``multiprocessing`` or pathos. That
            stays yours: it is never closed or changed. ``None``: what the user has set, else what is preferred, else
            ``"processes"``.
        workers: How many items run at once: 1 or more; below 0 counted back from the CPUs this process may use, so -1
            is all of them and -2 all but one; or a share of them, as ``"50%"``. ``None``: what the user has set, else
            what suits the backend.
        ordered: Results in the order of the items; ``False``: as they are finished.
        lazy: Return a :class:`MapIterator` at once instead of a list at the end. The map begins with the first result
            that is asked for, and ends when the iterator is exhausted, closed, left by ``with``, or dropped.
        prefer: A library's hint, ``"threads"`` or ``"processes"``, for where no backend is chosen.
        require: ``"shared_memory"``, where ``func`` has to see or change the caller's own objects. If the backend that
            was chosen cannot give it, the map warns and runs in threads.
        progress: What is shown. ``None``: a bar for the outermost map on a terminal or in a notebook, once it has
            lasted half a second; ``True`` or ``False``; ``"bar"``, ``"rich"``, ``"log"``, ``"jsonl:PATH"`` or ``"off"``;
            keyword arguments of tqdm's in a mapping; a tqdm class; anything callable that takes an event; or a list of
            these. See :func:`anymap.progress.resolve`.
        desc: What the bar and the log call this map.
        total: How many items to expect, for the bar and for ``max_failures``, where the iterables do not tell.
        on_error: What becomes of an item whose call raises.

            * ``"raise"``: the first failure ends the map and is raised, as the exception it was, with a note that
              names the item.
            * ``"return"``: the exception stands in the result's place, and everything else still runs.
            * ``"skip"``: there is no result for that item; the results close ranks.
            * ``"group"``: everything runs, then one :class:`MapError` is raised with all results and failures.

            :func:`failure` tells from such an exception the item, its index, attempts, worker and traceback. Where the
            items are secret, ``ANYMAP_SHOW_ITEMS=off`` keeps their ``repr`` out of notes and messages.
        max_failures: End the map with a :class:`MapError` once more items than this have failed, 0 or more; or more
            than a share of them, as ``"5%"``. ``None``: never. The error has all failures and results so far. Not with
            ``on_error="raise"``, which ends the map at the first.
        retries: How often to try a failed item again, 0 or more (``None``: what the user has set, else 0); or a :class:`Retry`, for pauses in between and to
            choose the exceptions. A worker that dies costs the item it was running one attempt.
        timeout: Seconds that one attempt of one item may take, from its start; above 0. A later one fails with
            :class:`ItemTimeout`. ``None``: what the user has set, else any time; ``math.inf``: any time in any case.
        chunksize: How many items travel together, 1 or more. ``None``: as measured while the map runs.
        window: How many items may be under way, 1 or more; if ``lazy``, items whose results wait to be taken count too,
            so that the input is never read further ahead than this. ``None``: two chunks for each worker.
        seed: Gives each item a stream of random numbers of its own, which :func:`rng` returns: the same on any backend;
            0 or more. ``None``: without a seed.

    Returns:
        A list, or a :class:`MapIterator` if ``lazy``.

    Raises:
        TypeError: There is no iterable, one of them cannot be iterated over, or ``func`` cannot be called.
        ConfigError: An argument or a setting of the user's has a wrong type or value. It is a ``ValueError``, too.
        UnknownBackend: No backend has that name.
        BackendUnavailable: What the backend runs on is not installed; the message has the command that installs it.
        BackendConnectionError: The engine cannot be reached, or takes no more work.
        UnsupportedOption: The backend cannot do what was asked; the message names those that can.
        NotPicklable: ``func``, an item or a result cannot be sent to another process; the message says which and why.
        WorkerLost: The worker that ran an item died, and the item was not to be tried again.

    With ``lazy``, the first four are raised by the call itself, the others where a result is asked for.

    Results one by one, matched with their items although they come as they are finished:

    >>> with pmap(len, ["a", "bb"], backend="threads", lazy=True, ordered=False) as lengths:
    ...     dict(lengths.indexed()) == {0: 1, 1: 2}
    True

    Errors as values:

    >>> pmap(int, ["1", "x"], backend="serial", on_error="return")
    [1, ValueError("invalid literal for int() with base 10: 'x'")]
    """
    options = {name: value for name, value in locals().items() if name not in ("func", "iterables", "unknown")}
    for name in unknown:
        raise unexpected("pmap()", name, options)
    # What a map leaves is freed in here too: what a handler raises in a finalizer is lost.
    with held_back():
        return _map(func, iterables, options)


def _map(func: Callable[..., Any], iterables: tuple[Iterable[Any], ...], options: dict[str, Any]) -> Any:
    plan = make_plan(func, iterables, **options)
    run = run_of(plan, rows_of(iterables, plan))
    return iterate(run, plan) if plan.lazy else collect(run, plan)
