"""What items print: forwarded line by line, kept with a failure, or left alone."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import pmap, using

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anymap.backends.base import Backend

    Setting = Callable[..., None]


@pytest.fixture
def setting() -> Iterator[Setting]:
    """Set settings, for the length of a test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(using(**settings))


def prints(item: int) -> int:
    sys.stdout.write(f"begun {item},")
    print(f" ended {item}")
    print(f"trouble {item}", file=sys.stderr)
    sys.stdout.write(f"rest {item}")
    return item


def test_forwarded_output_is_printed_here_in_whole_lines(
    backend: Backend, setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting(output="forward")
    assert pmap(prints, range(4), backend=backend, workers=2) == [0, 1, 2, 3]
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert sorted(lines) == sorted(line for n in range(4) for line in (f"begun {n}, ended {n}", f"rest {n}"))
    assert all(lines.index(f"begun {n}, ended {n}") < lines.index(f"rest {n}") for n in range(4))
    assert sorted(err.splitlines()) == [f"trouble {n}" for n in range(4)]


def test_a_prefix_tells_whose_line_it_is(
    backend: Backend, setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting(output="forward", output_prefix="[{item} {backend}]")
    pmap(print, ["one", "two\nlines"], backend=backend, workers=1)
    name, lines = backend.name, capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("[0")] == [f"[0 {name}] one"]
    assert [line for line in lines if line.startswith("[1")] == [f"[1 {name}] two", f"[1 {name}] lines"]
    assert len(lines) == 3


def test_a_line_comes_while_the_item_runs(backend: Backend, setting: Setting, tmp_path: Path) -> None:
    class Notes:
        def write(self, text: str) -> None:
            (tmp_path / "seen").touch()

        def flush(self) -> None: ...

    def waits(item: int) -> bool:
        print("here")
        give_up = time.monotonic() + 30
        while not (tmp_path / "seen").exists() and time.monotonic() < give_up:
            time.sleep(0.001)
        return (tmp_path / "seen").exists()

    setting(output="forward")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Notes())
        assert pmap(waits, range(1), backend=backend, workers=1) == [True]


def prints_and_fails(item: int) -> int:
    print("item", item)
    print("oh", file=sys.stderr)
    if item % 2:
        raise ValueError(item)
    return item


def test_kept_output_is_with_the_failure(
    backend: Backend, setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting(output="keep")
    results = pmap(prints_and_fails, range(4), backend=backend, workers=2, chunksize=4, on_error="return")
    failures: list[Any] = [anymap.failure(results[index]) for index in (1, 3)]
    assert [failure.output for failure in failures] == ["item 1\noh\n", "item 3\noh\n"]
    assert capsys.readouterr() == ("", "")


def test_of_much_output_the_end_is_kept(setting: Setting) -> None:
    def shouts(item: int) -> None:
        for number in range(100_000):
            print(number)
        raise ValueError(item)

    setting(output="keep")
    (error,) = pmap(shouts, range(1), backend="serial", on_error="return")
    failure = anymap.failure(error)
    assert failure is not None
    assert failure.output.endswith("\n99998\n99999\n")
    assert len(failure.output) == 64 * 1024


def test_output_is_left_alone_unless_somebody_asks(capfd: pytest.CaptureFixture[str]) -> None:
    results = pmap(prints_and_fails, range(2), backend="processes", workers=1, on_error="return")
    failure = anymap.failure(results[1])
    assert failure is not None
    assert failure.output == ""


@pytest.mark.parametrize("output", ["forward", "keep"])
def test_the_streams_are_given_back(output: str, setting: Setting) -> None:
    before = sys.stdout, sys.stderr

    def streams(item: int) -> tuple[Any, Any]:
        return sys.stdout, sys.stderr

    setting(output=output)
    ((stdout, _),) = pmap(streams, range(1), backend="threads", workers=1)
    assert stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before
    assert stdout.encoding == before[0].encoding


def test_what_the_caller_prints_meanwhile_is_his(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    setting(output="keep")
    for item in pmap(prints, range(2), backend="threads", workers=1, lazy=True, ordered=True):
        print("caller", item)
    assert capsys.readouterr().out == "caller 0\ncaller 1\n"
