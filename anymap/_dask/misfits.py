"""Workers that cannot run what they are sent, because they are not as the caller is."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from anymap import _worker
from anymap._errors import BackendConnectionError, BackendUnavailable

if TYPE_CHECKING:
    from anymap._exceptions import Encoded
    from anymap._worker import Answer

_INSTALL = "pip install 'anypmap[dask]' on the workers"


def misfit(answer: Any, where: str) -> Exception | None:
    """Say what is wrong with a worker, by how it answered; ``None`` if it is nothing that concerns us."""
    if isinstance(answer, ModuleNotFoundError) and (answer.name or "").partition(".")[0] in {"anymap", "cloudpickle"}:
        return BackendUnavailable("dask", f"{where} has no module {answer.name!r}", _INSTALL)
    if isinstance(answer, AttributeError) and "anymap" in str(answer):
        return BackendConnectionError(f"{where} has another version of anymap: {answer}")
    if isinstance(answer, tuple) and answer != _worker.dialect():
        return BackendConnectionError(f"{where} does not fit: {_worker.describe_misfit(_worker.dialect(), answer)}")
    return None


def with_advice(answer: Answer) -> Answer:
    """Say with each error for want of a module that the caller has what to do about it."""
    if answer.broken is None and not answer.failures:
        return answer
    failures = [(position, _advise(raised), seconds) for position, raised, seconds in answer.failures]
    return answer._replace(failures=failures, broken=None if answer.broken is None else _advise(answer.broken))


def _advise(error: Encoded) -> Encoded:
    name = _missing_module(error)
    if name is None:
        return error
    advice = (
        f"anymap: the caller has the module {name!r} and the worker has not: install it there, "
        f"or send it along by Dask(ship_modules=[{name!r}])"
    )
    return error._replace(notes=(*error.notes, advice))


def _missing_module(error: Encoded) -> str | None:
    """Return the top-level module for want of which this was raised, if it is found here."""
    if error.type_name != "ModuleNotFoundError":
        return None
    name = error.message.rpartition("named ")[2].strip("'\"").partition(".")[0]
    return name if name.isidentifier() and importlib.util.find_spec(name) is not None else None
