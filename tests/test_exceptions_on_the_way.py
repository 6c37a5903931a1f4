"""Exceptions arrive as they were raised: type, arguments, text, attributes, notes. So do those that are results or items."""

from __future__ import annotations

import copyreg
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Never, Self

import numpy as np
import pytest

import anymap
from anymap import MapError, RemoteError, failure, pmap
from anymap._host import guarded
from anymap.testing import _samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.backends.base import Backend

pytestmark = pytest.mark.versions


class NoUser(Exception):  # noqa: N818
    """Its constructor formats its argument: called again, it does so again."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no such user: {name}")


class ChangesArguments(Exception):  # noqa: N818
    def __init__(self, code: int, hint: str = "") -> None:
        super().__init__(code + 1)
        self.hint = hint


class Slotted(Exception):  # noqa: N818
    __slots__ = ("__hidden", "code", "unset")

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code, self.__hidden = code, [code]

    def __str__(self) -> str:
        return f"{self.code} {self.__hidden}"


class MadeByNew(Exception):  # noqa: N818
    def __new__(cls, *parts: str) -> Self:
        exc = super().__new__(cls, "-".join(parts))
        exc.count = len(parts)
        return exc

    def __init__(self, *parts: str) -> None:
        super().__init__(f"<{'-'.join(parts)}>")

    count: int


@dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818
    code: int
    where: str = "here"


class OwnOSError(OSError):
    def __init__(self, name: str) -> None:
        super().__init__(2, "gone", name)


class SeveralBases(ValueError, OSError):  # noqa: N818
    def __init__(self, name: str) -> None:
        OSError.__init__(self, 13, "shut", name)


class ReducerForgets(Exception):  # noqa: N818
    """As those of urllib3: what its reducer gives is no more than of the same class."""

    def __init__(self, pool: object, text: str) -> None:
        super().__init__(f"{pool}: {text}")
        self.pool = pool
        self.extra = "of the constructor"

    def __reduce__(self) -> Any:
        return type(self), (None, "")


class ReducerFails(Exception):  # noqa: N818
    def __init__(self, text: str) -> None:
        super().__init__(text)

    def __reduce__(self) -> Any:
        return type(self), ()


class OwnState(Exception):  # noqa: N818
    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(dict.fromkeys(state, "of __setstate__"))


class ByCopyreg(NoUser):
    pass


def reduce_by_copyreg(exc: ByCopyreg) -> Any:
    return ByCopyreg, exc.args


copyreg.pickle(ByCopyreg, reduce_by_copyreg)


class OwnGroup(ExceptionGroup[Exception]):
    def __new__(cls, text: str, members: list[Exception], code: int) -> Self:
        exc = super().__new__(cls, f"group: {text}", members)
        exc.code = code
        return exc

    code: int


def with_attributes(exc: Exception, **attributes: Any) -> Exception:
    for name, value in attributes.items():
        setattr(exc, name, value)
    return exc


def with_note(exc: Exception) -> Exception:
    exc.add_note("a note")
    return exc


def raised(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as exc:  # noqa: BLE001 - whatever it is
        return exc
    raise AssertionError


MADE: dict[str, Callable[[], Exception]] = {
    "a constructor that formats": lambda: NoUser("ann"),
    "a constructor that changes its arguments": lambda: ChangesArguments(1, hint="h"),
    "attributes of a constructor": lambda: with_attributes(NoUser("ann"), code=[1], name="ann"),
    "arguments set later": lambda: with_attributes(NoUser("ann"), args=("other", 2)),
    "a note": lambda: with_note(NoUser("ann")),
    "a note of a built-in": lambda: with_note(ValueError("text")),
    "notes that are a tuple": lambda: with_attributes(ValueError("text"), __notes__=("a", "b")),
    "slots": lambda: Slotted(7),
    "made by __new__": lambda: MadeByNew("a", "b"),
    "a frozen dataclass": lambda: Frozen(7),
    "a reducer that forgets": lambda: with_note(with_attributes(ReducerForgets("pool", "text"), later=[1])),
    "a reducer whose constructor fails": lambda: with_attributes(ReducerFails("text"), later=[1]),
    "a state of its own": lambda: with_attributes(OwnState("text"), code=7),
    "copyreg": lambda: ByCopyreg("ann"),
    "OSError": lambda: FileNotFoundError(2, "gone", "one", None, "two"),
    "OSError of a subclass": lambda: OwnOSError("file"),
    "OSError without a file": lambda: OSError(2, "gone"),
    "OSError whose file was set": lambda: with_attributes(OSError(2, "gone"), filename="later"),
    "OSError of several bases": lambda: SeveralBases("file"),
    "characters written": lambda: BlockingIOError(11, "full", 5),
    "SyntaxError": lambda: raised(lambda: compile("a b", "file.py", "exec")),
    "SyntaxError whose line was set": lambda: with_attributes(SyntaxError("bad"), lineno=3, filename="f", text="a b"),
    "ImportError": lambda: ImportError("no", name="module", path="/path"),
    "UnicodeDecodeError": lambda: raised(b"\xff".decode),
    "UnicodeEncodeError changed": lambda: with_attributes(
        UnicodeEncodeError("ascii", "aé", 1, 2, "no"), reason="other"
    ),
    "StopIteration": lambda: StopIteration(7, 8),
    "StopAsyncIteration": lambda: StopAsyncIteration(7),
    "AttributeError": lambda: raised(lambda: threading.Lock().nothing),  # type: ignore[attr-defined]
    "NameError": lambda: raised(lambda: eval("nothing")),
    "KeyError": lambda: KeyError(("a", 1)),
    "a group": lambda: ExceptionGroup("text", [NoUser("ann"), with_note(Slotted(3))]),
    "a group of its own": lambda: with_note(OwnGroup("text", [NoUser("ann"), ExceptionGroup("g", [Frozen(1)])], 7)),
    "a MapError": lambda: MapError("text", [NoUser("ann")], [1, NoUser("ann")]),
    "an exception among the arguments": lambda: RuntimeError(NoUser("ann"), {"key": [ReducerForgets("p", "t")]}),
}


def told(value: Any) -> Any:
    """Return all there is to an exception but where it was raised, as plain data."""
    if isinstance(value, BaseException):
        attributes = {name: told(each) for name, each in vars(value).items() if not name.startswith("__")}
        notes = [note for note in getattr(value, "__notes__", ()) if not note.startswith("anymap: ")]
        members = told(value.exceptions) if isinstance(value, BaseExceptionGroup) else None
        return type(value), told(value.args), str(value), attributes, notes, fields(value), members
    if isinstance(value, list | tuple):
        return type(value), [told(each) for each in value]
    if isinstance(value, dict):
        return {key: told(each) for key, each in value.items()}
    return value


OF_BUILT_INS = (
    *(
        "errno",
        "strerror",
        "filename",
        "filename2",
        "characters_written",
        "msg",
        "lineno",
        "offset",
        "text",
        "end_lineno",
    ),
    *("end_offset", "name", "path", "encoding", "object", "start", "end", "reason", "value"),
)


def fields(exc: BaseException) -> dict[str, object]:
    names = [*OF_BUILT_INS, "code", "unset", "_Slotted__hidden"]
    return {name: told(getattr(exc, name)) for name in names if hasattr(exc, name)}


class Holder:
    def __init__(self, exc: Exception) -> None:
        self.exc = exc


def made(name: str) -> Exception:
    return MADE[name]()


def raise_made(name: str) -> Never:
    raise made(name)


def test_an_exception_arrives_as_it_was_raised(backend: Backend) -> None:
    errors = pmap(raise_made, list(MADE), backend=backend, workers=2, on_error="return")
    for name, error in zip(MADE, errors, strict=True):
        assert (name, told(error)) == (name, told(MADE[name]()))


def test_an_exception_that_is_a_result_an_item_or_in_one_is_not_changed(backend: Backend) -> None:
    results = pmap(made, list(MADE), backend=backend, workers=2)
    items = [make() for make in MADE.values()]
    seen = pmap(lambda exc: (told(exc), Holder(exc)), items, backend=backend, workers=2)
    for name, result, (in_worker, holder) in zip(MADE, results, seen, strict=True):
        expected = (name, told(made(name)))
        assert (name, told(result)) == expected
        assert (name, in_worker) == expected
        assert (name, told(holder.exc)) == expected


def test_one_object_that_many_items_raise_is_copied_as_it_is() -> None:
    for name, make in MADE.items():
        shared = make()

        def fail(_: int, exc: Exception = shared) -> Never:
            raise exc

        expected = told(shared)
        errors = pmap(fail, range(2), backend="threads", on_error="return")
        assert errors[0] is not errors[1]
        assert [(name, told(error)) for error in errors] == [(name, expected)] * 2


def test_an_exception_of_a_class_that_travels_by_value_is_not_changed(backend: Backend) -> None:
    class Local(Exception):  # noqa: N818
        def __init__(self, name: str) -> None:
            super().__init__(f"no such user: {name}")

    def maybe(raises: bool) -> Exception:
        exc = with_note(with_attributes(Local("ann"), code=7))
        if raises:
            raise exc
        return exc

    for exc in pmap(maybe, [True, False], backend=backend, on_error="return"):
        assert told(exc) == told(raised(lambda: maybe(True)))


def test_what_is_no_exception_by_its_class_is_returned_unchanged(backend: Backend) -> None:
    made: list[BaseException] = [SystemExit(3), KeyboardInterrupt("now"), BaseExceptionGroup("g", [SystemExit("text")])]
    results = pmap(lambda x: made[x], range(3), backend=backend)
    assert [told(result) for result in results] == [told(exc) for exc in made]


def test_an_exception_with_a_large_array_is_not_changed(backend: Backend) -> None:
    class Local(Exception):  # noqa: N818
        def __init__(self, size: int) -> None:
            super().__init__(f"so many: {size}")
            self.array = np.arange(size)

    def fail(size: int) -> Never:
        raise Local(size)

    size = 1_000_000
    [error] = pmap(fail, [size], backend=backend, on_error="return")
    assert (type(error), str(error), error.array[-1]) == (Local, f"so many: {size}", size - 1)


def test_an_exception_in_a_context_variable_is_not_changed(backend: Backend) -> None:
    token = _samples.request.set(NameError("text", name="ann"))  # type: ignore[arg-type]
    try:
        with anymap.using(context=["anymap.testing._samples:request"]):
            assert pmap(lambda _: _samples.request.get().name, [0], backend=backend) == ["ann"]  # type: ignore[attr-defined]
    finally:
        _samples.request.reset(token)


def test_an_exception_in_a_log_record_is_not_changed(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    def log(_: int) -> None:
        logging.getLogger("of_this_test").warning("text", extra={"error": NameError("text", name="ann")})

    pmap(log, [0], backend=backend)
    [error] = [record.error for record in caplog.records if record.name == "of_this_test"]
    assert (type(error), str(error), error.name) == (NameError, "text", "ann")


class Recreates(Exception):  # noqa: N818
    """Its reducer leaves out what cannot be pickled, and its constructor makes it anew."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        return type(self), self.args


def test_what_a_reducer_leaves_out_is_missed_by_none(backend: Backend) -> None:
    def both(_: int) -> Exception:
        return with_attributes(Recreates("text"), later=7)

    def fail(_: int) -> Never:
        raise both(0)

    for exc in (*pmap(both, [0], backend=backend), *pmap(fail, [0], backend=backend, on_error="return")):
        assert (type(exc), str(exc), exc.later) == (Recreates, "text", 7)
        assert exc.lock.acquire(blocking=False)


def test_what_cannot_be_sent_is_told_as_text(backend: Backend) -> None:
    def fail(_: int) -> Never:
        raise with_attributes(NoUser("ann"), lock=threading.Lock())

    [error] = pmap(fail, [0], backend=backend, on_error="return")
    assert "no such user: ann" in str(error)
    assert type(error) is (NoUser if backend.traits.shares_memory else RemoteError)


def test_an_exception_that_refers_to_itself_arrives(backend: Backend) -> None:
    def make(_: int) -> Exception:
        exc = NoUser("ann")
        exc.args = ("text", exc)
        return with_attributes(exc, itself=[exc])

    [exc] = pmap(make, [0], backend=backend)
    assert exc.args[1] is exc.itself[0] is exc


def test_members_of_a_group_keep_their_traceback_cause_and_notes(backend: Backend) -> None:
    def member(_: int) -> Never:
        try:
            raise KeyError("cause")
        except KeyError as exc:
            raise with_note(NoUser("ann")) from exc

    def fail(_: int) -> Never:
        raise ExceptionGroup("group", [raised(lambda: member(0)), ExceptionGroup("inner", [raised(lambda: member(0))])])

    [error] = pmap(fail, [0], backend=backend, on_error="return")
    for each in (error.exceptions[0], error.exceptions[1].exceptions[0]):
        assert str(each) == "no such user: ann"
        assert each.__notes__ == ["a note"]
        assert type(each.__cause__) is KeyError
        assert "in member" in guarded.traceback(each, chain=False)


def test_the_context_is_kept_beside_a_cause(backend: Backend) -> None:
    def fail(x: int) -> Never:
        try:
            raise KeyError("equal")
        except KeyError as exc:
            cause = exc if x else KeyError("equal")
            raise ValueError(x) from cause

    for x in (0, 1):
        [error] = pmap(fail, [x], backend=backend, on_error="return")
        assert (type(error.__cause__), type(error.__context__)) == (KeyError, KeyError)
        assert (error.__cause__ is error.__context__) == bool(x)


def test_errors_of_a_map_inside_keep_their_items(backend: Backend) -> None:
    def inner(_: int) -> list[Exception]:
        return pmap(raise_made, ["slots"], backend="serial", on_error="return")

    [[error]] = pmap(inner, [0], backend=backend)
    assert failure(error).item == "slots"  # type: ignore[union-attr]
    assert str(error) == "7 [7]"
