"""Write the table of what each backend promises, from its traits, into its page.

Run it when traits change: ``python docs/promises.py``. A test holds the page to it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from anymap.backends import Dask, Joblib, Pathos, Processes, Serial, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.backends.base import Backend, Traits

PAGE = Path(__file__).parent / "howto" / "when-things-go-wrong.md"
BEGIN = "<!-- From the traits of the backends, by `python docs/promises.py`. -->"
END = "<!-- End of what was generated. -->"


def _runs_in(traits: Traits) -> str:
    if traits.shares_memory:
        return "the caller's thread" if traits.inline else "threads of the caller"
    if traits.remote:
        return "a cluster, maybe of other machines"
    return "forks of the caller" if traits.forks else "processes"


def _timeout(traits: Traits) -> str:
    if traits.inline:
        return "is not enforced, with a warning"
    if traits.kills:
        return "ends the item and its worker"
    return "abandons the item" if traits.shares_memory or traits.live else "is refused"


def _death(traits: Traits) -> str:
    if traits.shares_memory:
        return "is the program's"
    if not traits.sees_death:
        return "is not seen"
    return "costs one item, sought among suspects" if traits.remote else "costs one item"


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


PROMISES: dict[str, Callable[[Traits], str]] = {
    "items run in": _runs_in,
    "objects are": lambda traits: "shared" if traits.shares_memory else "copied",
    "locks of other threads are inherited": lambda traits: _yes(traits.forks),
    "the death of a worker": _death,
    "its exit code is told": lambda traits: (
        "" if traits.shares_memory else _yes(traits.sees_death and not traits.remote)
    ),
    "`timeout=`": _timeout,
}


def table() -> str:
    """Return the table as Markdown, a line for each backend."""
    rows = [["", *PROMISES], ["---"] * (1 + len(PROMISES))]
    rows += [[name, *(say(traits) for say in PROMISES.values())] for name, traits in _traits().items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _traits() -> dict[str, Traits]:
    return {
        "`serial`": Serial().traits,
        "`threads`": Threads().traits,
        "`processes`": Processes().traits,
        '`Processes(start_method="fork")`': Processes(start_method="fork").traits,
        "`pathos`": Pathos().traits,
        "`joblib`, not configured": Joblib().traits,
        "`dask`, a cluster of its own": _opened(Dask()),
        "`dask`, a cluster that is there": Dask(address="tcp://...").traits,
    }


def _opened(backend: Backend) -> Traits:
    backend.open(1)
    backend.close(abandon=False)
    return backend.traits


def rewritten(text: str) -> str:
    """Return a page with the table as it should be."""
    return re.sub(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", f"\n{table()}\n\n", text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
