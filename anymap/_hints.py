"""What a wrong name may have been meant to be: one that is misspelt, or what other libraries call the same thing."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

P = ParamSpec("P")
R = TypeVar("R")

_ELSEWHERE = {
    "workers": "n_jobs num_cpus max_workers processes jobs ncpus cpus njobs n_workers num_workers nprocs nproc n_processes "
    "num_processes n_cpus n_cores cores nodes threads n_threads num_threads n_proc pool_size",
    "chunksize": "chunk_size chunks batch_size batchsize batch",
    "progress": "progress_bar progressbar pbar tqdm show_progress verbose use_tqdm bar verbosity",
    "desc": "description label title",
    "total": "length size n_items",
    "backend": "executor client pool engine scheduler",
    "retries": "max_retries retry tries attempts n_retries",
    "timeout": "time_out time_limit task_timeout",
    "on_error": "return_exceptions return_errors ignore_errors errors raise_exceptions skip_errors",
    "ordered": "unordered keep_order preserve_order",
    "window": "buffersize prefetch pre_dispatch max_queue max_pending",
    "seed": "random_state random_seed rng",
    "lazy": "generator return_as iterator",
    "max_tasks_per_worker": "max_tasks_per_child maxtasksperchild",
    "initializer": "init setup worker_init",
}
"""Our keywords, and what goes by other names elsewhere."""
_OURS = {other: ours for ours, others in _ELSEWHERE.items() for other in others.split()}

_ENGINES = {
    "loky": "'joblib', which runs on loky",
    "multiprocessing": "'processes'; or 'pathos' for forks",
    "multiprocess": "'pathos', which runs on multiprocess",
    "mp": "'processes'",
    "spawn": "'processes'",
    "fork": "anymap.backends.Processes(start_method='fork')",
    "process": "'processes'",
    "processpool": "'processes'",
    "threading": "'threads'",
    "threadpool": "'threads'",
    "concurrent.futures": "'processes' or 'threads'; or give an executor of yours",
    "futures": "'processes' or 'threads'; or give an executor of yours",
    "distributed": "'dask'",
    "dask.distributed": "'dask'",
    "sequential": "'serial'",
    "synchronous": "'serial'",
    "sync": "'serial'",
    "single": "'serial'",
    "local": "'processes'",
    "auto": "None, which leaves the choice to the user",
}
"""What is no backend's name here, and what to ask for instead."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a sentence, after a blank, that names what comes nearest; nothing if nothing does."""
    import difflib  # noqa: PLC0415 - only wanted when something is wrong, and every map imports this

    known = list(known)
    if _OURS.get(str(name)) in known:
        return f" Did you mean {_OURS[str(name)]!r}?"
    nearest = difflib.get_close_matches(str(name), known, n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def did_you_mean_backend(name: str, known: Iterable[str]) -> str:
    """Return such a sentence for the name of a backend."""
    if (ours := _ENGINES.get(name.lower())) is not None:
        return f" Did you mean {ours}?"
    return did_you_mean(name, known)


def unexpected(call: str, name: str, known: Iterable[str]) -> TypeError:
    """Return the error for a keyword that ``call`` does not know."""
    known = list(known)
    hint = did_you_mean(name, known) or (
        f" Arguments for the function itself go into it by functools.partial. {call} takes {', '.join(known)}"
    )
    return TypeError(f"{call} got an unexpected keyword argument {name!r}.{hint}")


def keywords_checked(call: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function say of a keyword that it does not know what that may have been meant to be."""

    def decorate(func: Callable[P, R]) -> Callable[P, R]:
        code: Any = func.__code__
        known = [name for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if name != "self"]

        @functools.wraps(func)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    raise unexpected(call, name, known)
            return func(*args, **kwargs)

        return checked

    return decorate
