"""What a wrong name may have been meant to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a sentence, after a blank, that names what comes nearest; nothing if nothing does."""
    import difflib  # noqa: PLC0415 - only wanted when something is wrong, and every map imports this

    nearest = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
