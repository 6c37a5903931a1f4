"""What a map asks for and its backend cannot do: refused, or warned of."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from anymap._engine.callers import callers_level
from anymap._errors import UnsupportedOption
from anymap._host import forks

if TYPE_CHECKING:
    from anymap._engine.plan import Plan
    from anymap.backends.base import Backend


def warn_of_forks(backend: Backend) -> None:
    """Warn where workers are about to be forked off this process, and a library in it does not survive that."""
    if not backend.traits.forks or backend.traits.borrowed:
        return
    for library in forks.dangerous_libraries():
        warnings.warn(
            f"{library} has been used in this process, and may wait for ever in the forks that backend {backend.name!r} is "
            "about to make: use backend='processes', whose workers are fresh interpreters",
            stacklevel=callers_level(),
        )


def check_timeout(plan: Plan) -> None:
    """Once the backend is open and its traits are known: raise ``UnsupportedOption`` where ``timeout=`` cannot be kept; warn where the caller's own thread runs the items."""
    traits = plan.backend.traits
    if plan.timeout is None:
        return
    if traits.inline:
        message = f"backend {plan.backend.name!r} cannot end an item: timeout={plan.timeout:g} is not enforced"
        warnings.warn(message, stacklevel=callers_level())
    elif traits.remote and not traits.live:
        raise UnsupportedOption(
            f"backend {plan.backend.name!r} cannot tell when an item began, so timeout= cannot be kept; "
            "'processes', 'pathos', 'dask' and 'threads' can"
        )
