"""Exceptions that cannot be formatted, annotated or asked are told of as any other, and cost their item alone."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Never

import pytest

from anymap import Executor, MapError, Pool, RemoteError, Retry, failure, pmap
from anymap._host import guarded
from anymap.backends import Dask, Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anymap.backends.base import Backend

pytestmark = pytest.mark.versions


def refuse(*_: object) -> Never:
    raise RuntimeError("refused")


def with_notes(notes: object) -> Exception:
    exc = ValueError("text")
    exc.__notes__ = notes  # type: ignore[assignment]
    return exc


def odd_syntax_error() -> SyntaxError:
    return SyntaxError("text", ("file.py", "one", "two", "line", "three", "four"))


def caused_by_odd() -> Exception:
    exc = ValueError("text")
    exc.__cause__ = odd_syntax_error()
    return exc


class FixedNotes(Exception):  # noqa: N818
    __notes__ = ("fixed",)


class RefusesNotes(Exception):  # noqa: N818
    add_note = refuse

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        refuse()


class RefusesAttributes(Exception):  # noqa: N818
    __setattr__ = refuse


@dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818
    code: int = 7


class Mute(Exception):  # noqa: N818
    __str__ = __repr__ = refuse


class LeavesByItsText(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise SystemExit


class OddText(str):
    __slots__ = ()
    __format__ = split = refuse


class HasOddText(Exception):  # noqa: N818
    def __str__(self) -> str:
        return OddText("text")


class AnswersNothing(Exception):  # noqa: N818
    __getattribute__ = refuse


class Shadows(Exception):  # noqa: N818
    """Its class has other things in the place of what exceptions have."""

    args = with_traceback = __cause__ = __context__ = __traceback__ = property(refuse)  # type: ignore[assignment]
    __suppress_context__ = __dict__ = property(refuse)  # type: ignore[assignment]


class NeverCompared(Exception):  # noqa: N818
    __eq__ = __bool__ = __len__ = refuse  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


class OddGroup(ExceptionGroup[Exception]):
    message = exceptions = property(refuse)  # type: ignore[assignment]


ODD: dict[str, Callable[[], Exception]] = {
    "notes that are None": lambda: with_notes(None),
    "notes that are a tuple": lambda: with_notes(("a", "b")),
    "notes that are a text": lambda: with_notes("a"),
    "notes that are a number": lambda: with_notes(7),
    "a note whose text raises": lambda: with_notes([Mute()]),
    "notes of the class": FixedNotes,
    "notes that raise": RefusesNotes,
    "a syntax error in no line": odd_syntax_error,
    "a cause that cannot be formatted": caused_by_odd,
    "no attribute can be set": RefusesAttributes,
    "a frozen dataclass": Frozen,
    "a text that raises": Mute,
    "a text that leaves": LeavesByItsText,
    "a text of a class of its own": HasOddText,
    "no attribute can be read": AnswersNothing,
    "other things in the place of fields": Shadows,
    "neither true nor equal nor hashable": NeverCompared,
    "a group that tells no members": lambda: OddGroup("text", [ValueError("a")]),
}


def make(odd: str) -> Exception:
    return ODD[odd]()


def raise_odd(odd: str | None) -> int:
    if odd is not None:
        raise make(odd)
    return 0


def note_of(error: object) -> str:
    assert isinstance(error, BaseException)
    return "\n".join(map(guarded.text, guarded.attributes(error)["__notes__"]))


def test_an_odd_exception_costs_its_item_alone(backend: Backend) -> None:
    names = [None, *ODD, None]
    fails = range(1, len(ODD) + 1)
    returned = pmap(raise_odd, names, backend=backend, workers=2, on_error="return")
    assert (returned[0], returned[-1]) == (0, 0)
    for index in fails:
        assert f"item {index} " in note_of(returned[index])
        assert failure(returned[index]).index == index  # type: ignore[union-attr]
    assert pmap(raise_odd, names, backend=backend, workers=2, on_error="skip") == [0, 0]
    with pytest.raises(MapError) as group:
        pmap(raise_odd, names, backend=backend, workers=2, on_error="group", retries=Retry(1, on=ValueError))
    assert [found.index for found in group.value.failures] == [*fails]


def test_an_odd_exception_is_raised(backend: Backend) -> None:
    for odd in ODD:
        with pytest.raises(Exception) as raised:
            pmap(raise_odd, [None, odd, None], backend=backend, workers=2)
        assert failure(raised.value).index == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_exception_of_a_call_is_the_calls(odd: str) -> None:
    with Executor(1, backend="threads") as executor:
        assert "item 0 " in note_of(executor.submit(raise_odd, odd).exception())
        assert executor.submit(raise_odd, None).result() == 0


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_exception_of_an_initializer_tells_that(odd: str) -> None:
    def begin() -> None:
        raise make(odd)

    with Pool(1, initializer=begin, backend="threads") as pool:
        call = pool.apply_async(abs, (1,))
        with pytest.raises(type(make(odd))) as raised:
            call.get()
    assert "raised by the initializer" in note_of(raised.value)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("on_error", ["return", "group", "raise"])
def test_an_odd_exception_of_the_input_is_told(odd: str, on_error: Any) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise make(odd)

    if on_error == "return":
        assert type(pmap(abs, numbers(), backend="threads", on_error=on_error)[1]) is type(make(odd))
        return
    with pytest.raises(MapError if on_error == "group" else type(make(odd))):
        pmap(abs, numbers(), backend="threads", on_error=on_error)


class CannotBeLoaded:
    def __init__(self, odd: str) -> None:
        self.odd = odd

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise make(state["odd"])


class CannotBePickled:
    def __init__(self, odd: str) -> None:
        self.odd = odd

    def __reduce__(self) -> Never:
        raise make(self.odd)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("made", [CannotBeLoaded, CannotBePickled])
def test_an_odd_exception_of_an_item_or_a_result_on_its_way_is_the_items(
    made: Callable[[str], object], odd: str
) -> None:
    for results in (
        pmap(lambda x: x and made(odd), [0, 1], backend="processes", workers=1, on_error="return"),
        pmap(lambda x: bool(x) and 0, [0, made(odd)], backend="processes", workers=1, on_error="return"),
    ):
        assert results[0] in (0, False)
        assert "item 1 " in note_of(results[1])


class OddFunction(CannotBeLoaded):
    def __call__(self, x: int) -> int:
        return x


@pytest.mark.parametrize("name", ["processes", pytest.param("dask", marks=pytest.mark.dask)])
def test_an_odd_exception_of_a_function_that_is_loaded_is_told(name: str, request: pytest.FixtureRequest) -> None:
    backend = Dask(scheduler_file=request.getfixturevalue("dask_cluster")) if name == "dask" else Processes()
    for odd in ODD:
        with pytest.raises(Exception) as raised:
            pmap(OddFunction(odd), [1, 2], backend=backend, workers=2)
        assert "could not run what it was sent" in note_of(raised.value)
        told = raised.value.type_name if type(raised.value) is RemoteError else guarded.type_name(raised.value)
        assert told == guarded.type_name(make(odd))


@pytest.mark.parametrize("odd", ODD)
def test_there_is_text_of_an_odd_exceptions_traceback(odd: str) -> None:
    for made in (ODD[odd], lambda: MapError("several", [make(odd)])):
        try:
            raise made()
        except Exception as exc:  # noqa: BLE001 - any of them
            text = guarded.traceback(exc)
        assert f"in {test_there_is_text_of_an_odd_exceptions_traceback.__name__}" in text


def test_the_text_of_a_chain_that_cannot_be_formatted_has_all_of_it_in_order() -> None:
    try:
        try:
            raise odd_syntax_error()
        except SyntaxError as exc:
            try:
                raise KeyError("second") from exc
            except KeyError:
                raise ValueError("third")  # noqa: B904 - the context is what is tested
    except ValueError as exc:
        with pytest.raises(TypeError):
            traceback.format_exception(exc)
        text = guarded.traceback(exc)
    words = ["SyntaxError: text", "direct cause", "KeyError: 'second'", "During handling", "ValueError: third"]
    places = [text.index(word) for word in words]
    assert places == sorted(places)


def test_a_note_is_added_to_what_notes_there_are() -> None:
    for notes, known in ((None, []), (("a", "b"), ["a", "b"]), (["a"], ["a"]), ("a", ["a"]), (7, ["7"])):
        exc = with_notes(notes)
        guarded.add_note(exc, "ours")
        assert exc.__notes__ == [*known, "ours"]
    guarded.add_note(fixed := FixedNotes(), "ours")
    assert list(fixed.__notes__) == ["fixed", "ours"]
    assert FixedNotes.__notes__ == ("fixed",)
