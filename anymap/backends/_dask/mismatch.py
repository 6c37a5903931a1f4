"""Workers that cannot run what they are sent, because they are not as the caller is."""

from __future__ import annotations

from typing import Any

from anymap._errors import BackendConnectionError, BackendUnavailable
from anymap._worker.protocol import describe_mismatch, dialect

_INSTALL = "pip install 'anypmap[dask]' on the workers"


def mismatch(answer: Any, where: str) -> Exception | None:
    """Say what is wrong with a worker, by how it answered; ``None`` if it is nothing that concerns us."""
    if isinstance(answer, ModuleNotFoundError) and (answer.name or "").partition(".")[0] in {"anymap", "cloudpickle"}:
        return BackendUnavailable("dask", f"{where} has no module {answer.name!r}", _INSTALL)
    if isinstance(answer, AttributeError) and "anymap" in str(answer):
        return BackendConnectionError(f"{where} has another version of anymap: {answer}")
    if isinstance(answer, tuple) and answer != dialect():
        return BackendConnectionError(f"{where} does not fit: {describe_mismatch(dialect(), answer)}")
    return None
