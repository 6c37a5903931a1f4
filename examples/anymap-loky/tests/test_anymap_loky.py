from __future__ import annotations

from anymap.testing import BackendSuite


class TestLoky(BackendSuite):
    backend = "loky"
