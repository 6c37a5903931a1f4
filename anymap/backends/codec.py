"""Tasks and answers as bytes, for engines whose workers are other processes."""

from __future__ import annotations

import importlib.util
import io
import pickle
from typing import TYPE_CHECKING

from anymap._serialize import modules
from anymap._worker.protocol import dialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anymap._serialize.exceptions import Encoded
    from anymap._worker.protocol import Answer
    from anymap._worker.task import Task
    from anymap.backends.base import Backend

__all__ = ["TaskCodec"]


class TaskCodec:
    """Turns tasks to bytes and answers back, and sees to it that workers find the caller's modules.

    Make one in ``open``, once ``traits`` are set. Have the engine call ``run_task(codec.encode(task))`` where the work
    shall run, and end the task's future with ``codec.decode`` of the bytes that this returns:

    >>> from anymap.backends import TaskCodec, run_task

    By the same rule on every backend, a worker finds a module of the caller's

    1. among those that ``ship_modules`` names: their files travel with each task, and go before what the worker has;
    2. where the worker itself would find it;
    3. in the caller's ``sys.path``, as far as its directories exist where the worker runs, unless the engine is the
       user's (``traits.borrowed``), in whose workers nothing is changed.

    An error for want of a module that the caller has says how to send it along.

    Raises:
        ConfigError: ``ship_modules`` names what is no module or package with files of its own.
    """

    def __init__(self, backend: Backend, ship_modules: Iterable[str] = ()) -> None:
        names = modules.check_names(ship_modules)
        self.shipment = modules.pack(names) if names else None
        self._owner = type(backend).__name__
        path = () if backend.traits.borrowed else modules.caller_path()
        # Plain values, which a worker with another version of anymap can read too.
        self._head = pickle.dumps((dialect(), path, self.shipment and tuple(self.shipment)), 5)

    def encode(self, task: Task) -> bytes:
        """Return the argument for ``run_task``."""
        file = io.BytesIO()
        file.write(self._head)
        pickle.dump(task, file, 5)
        return file.getvalue()

    def decode(self, data: bytes) -> Answer:
        """Return the answer that ``run_task`` has made bytes of."""
        return _with_advice(pickle.loads(data), self._owner)


def _with_advice(answer: Answer, owner: str) -> Answer:
    """Add what to do about it to each error for want of a module that the caller has.

    ``owner`` is the class of the backend, which has an option ``ship_modules``.
    """
    if answer.broken is None and not answer.failures:
        return answer
    failures = [(position, _advise(raised, owner), seconds) for position, raised, seconds in answer.failures]
    broken = None if answer.broken is None else _advise(answer.broken, owner)
    return answer._replace(failures=failures, broken=broken)


def _advise(error: Encoded, owner: str) -> Encoded:
    name = _missing_module(error)
    if name is None:
        return error
    advice = (
        f"anymap: the caller has the module {name!r} and the worker has not: install it there, "
        f"or send it along by {owner}(ship_modules=[{name!r}])"
    )
    return error._replace(notes=(*error.notes, advice))


def _missing_module(error: Encoded) -> str | None:
    """Return the top-level module for want of which this was raised, if it is found here."""
    if error.type_name != "ModuleNotFoundError":
        return None
    name = error.message.rpartition("named ")[2].strip("'\"").partition(".")[0]
    return name if name.isidentifier() and importlib.util.find_spec(name) is not None else None
