"""For authors of backends, and for tests that would rather start no process.

:class:`BackendSuite` is the exam that every backend sits, ours included: subclass it in a test file and name the
backend. :func:`examine` holds the same exam without pytest. :class:`Gate` is a backend that runs nothing before a test
says so, in whatever order it says.
"""

from __future__ import annotations

from anymap.testing.gate import Gate, Held
from anymap.testing.suite import BackendSuite, Outcome, PromiseBroken, Report, examine

__all__ = ["BackendSuite", "Gate", "Held", "Outcome", "PromiseBroken", "Report", "examine"]


def __dir__() -> list[str]:
    return sorted(__all__)
