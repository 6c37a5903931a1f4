"""What these pages refer to in other projects' documentation, as inventories for Sphinx.

The names stand here, so that the pages are built the same without a network.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

PROJECTS = {
    "python": (
        "https://docs.python.org/3/",
        {
            "asyncio.AbstractEventLoop.run_in_executor": ("method", "library/asyncio-eventloop.html#$"),
            "concurrent.futures.CancelledError": ("class", "library/concurrent.futures.html#$"),
            "concurrent.futures.Executor": ("class", "library/concurrent.futures.html#$"),
            "concurrent.futures.Future": ("class", "library/concurrent.futures.html#$"),
            "contextvars.ContextVar": ("class", "library/contextvars.html#$"),
            "logging.Logger": ("class", "library/logging.html#$"),
            "logging.LogRecord": ("class", "library/logging.html#$"),
            "logging.Formatter": ("class", "library/logging.html#$"),
            "logging.Handler": ("class", "library/logging.html#$"),
            "logging.config.dictConfig": ("function", "library/logging.config.html#$"),
            "multiprocessing.TimeoutError": ("class", "library/multiprocessing.html#$"),
            "multiprocessing.pool.AsyncResult": ("class", "library/multiprocessing.html#$"),
            "multiprocessing.pool.Pool": ("class", "library/multiprocessing.html#$"),
            "os.PathLike": ("class", "library/os.html#$"),
            "random.Random": ("class", "library/random.html#$"),
        },
    ),
    "joblib": (
        "https://joblib.readthedocs.io/en/stable/",
        {"joblib.parallel_config": ("function", "generated/joblib.parallel_config.html#$")},
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        {"numpy.random.Generator": ("class", "reference/random/generator.html#$")},
    ),
    "rich": (
        "https://rich.readthedocs.io/en/stable/",
        {"rich.progress": ("module", "reference/progress.html#module-$")},
    ),
}


def write() -> dict[str, tuple[str, str]]:
    """Write an inventory of each project to a temporary file; return the mapping that intersphinx takes."""
    folder = Path(tempfile.mkdtemp(prefix="anymap-inventories-"))
    mapping = {}
    for project, (address, names) in PROJECTS.items():
        lines = [f"{name} py:{kind} 1 {where} -\n" for name, (kind, where) in names.items()]
        header = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
        header += "# The remainder of this file is compressed using zlib.\n"
        path = folder / f"{project}.inv"
        path.write_bytes(header.encode() + zlib.compress("".join(lines).encode()))
        mapping[project] = (address, str(path))
    return mapping
