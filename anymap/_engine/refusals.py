"""What a map asks for and its backend cannot do: refused once the backend is open, when its traits are known."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from anymap._engine.callers import callers_level
from anymap._errors import UnsupportedOption

if TYPE_CHECKING:
    from anymap._engine.plan import Plan


def check_timeout(plan: Plan) -> None:
    """Raise ``UnsupportedOption`` where ``timeout=`` cannot be kept; warn where the caller's own thread runs the items."""
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
