"""What a person reads when an item fails: the caller's own code, and little else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from anymap import pmap

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.backends.base import Backend


def this_file() -> str:
    return sys._getframe().f_code.co_filename


class Here:
    def method(self) -> str:
        return sys._getframe().f_code.co_filename

    @property
    def attribute(self) -> str:
        of_lambda: Callable[[], str] = lambda: sys._getframe().f_code.co_filename  # noqa: E731 - a lambda is what is tried
        return of_lambda()


def test_code_that_travels_by_value_keeps_the_name_of_its_file(backend: Backend) -> None:
    here = Here()

    def files(_: int) -> list[str]:
        def nested() -> str:
            return sys._getframe().f_code.co_filename

        of_generator = next(sys._getframe().f_code.co_filename for _ in range(1))
        return [this_file(), nested(), of_generator, here.method(), here.attribute, Here().method()]

    [found] = pmap(files, [0], backend=backend, workers=2)
    assert found == [__file__] * 6
