"""What is read of exceptions and written on them. Nothing of their classes takes part, or it is guarded.

A class may refuse attributes, as a frozen dataclass does, and its text, its notes and its traceback may raise.
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_FAILURE = "__anymap_failure__"
"""The attribute by which an exception that has been through a map knows its item."""
_OF_ALL: Any = vars(BaseException)
_OF_GROUPS: Any = vars(BaseExceptionGroup)
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"

# --- fields -----------------------------------------------------------------------------------------------------------


def get(exc: BaseException, name: str) -> Any:
    """Return what all exceptions have: ``args``, ``__traceback__``, ``__cause__``, ``__context__``, ..."""
    return _OF_ALL[name].__get__(exc)


def put(exc: BaseException, name: str, value: object) -> None:
    _OF_ALL[name].__set__(exc, value)


def attributes(exc: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = get(exc, "__dict__")
    return found


def is_group(exc: object) -> bool:
    return issubclass(type(exc), BaseExceptionGroup)


def members(exc: BaseException) -> tuple[BaseException, ...]:
    """Return the exceptions of a group; none of any other."""
    return _OF_GROUPS["exceptions"].__get__(exc) if is_group(exc) else ()


def notes(exc: BaseException) -> list[str]:
    """Return its notes as text."""
    try:
        found = getattr(exc, "__notes__", None)
        listed = list(found) if isinstance(found, list | tuple) else [] if found is None else [found]
    except Exception:  # noqa: BLE001 - what it finds them by is the user's
        return []
    return [text(note) for note in listed]


def add_note(exc: BaseException, note: str) -> None:
    """Add a note, whatever ``__notes__`` has been and whatever the class makes of ``add_note``."""
    found = attributes(exc).get("__notes__")
    if type(found) is not list:
        attributes(exc)["__notes__"] = found = notes(exc)
    found.append(note)


def mark(exc: BaseException, mark: object) -> None:
    """Have an exception know its item."""
    attributes(exc)[_FAILURE] = mark


def mark_of(exc: BaseException) -> Any:
    return attributes(exc).get(_FAILURE)


def unmark(exc: BaseException) -> Any:
    """Have an exception know of no item; return its mark."""
    return attributes(exc).pop(_FAILURE, None)


# --- texts ------------------------------------------------------------------------------------------------------------


def text(value: object) -> str:
    """Return what ``str`` does; of a group, its message."""
    try:
        # A subclass of str may be of the user's, too, and unknown where the text arrives.
        return str.__str__(_OF_GROUPS["message"].__get__(value) if is_group(value) else str(value))
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - __str__ is the user's
        return f"<its text raised {type_name(exc)}>"


def short_repr(value: object) -> str:
    """Return a short ``repr``."""
    try:
        return _short.repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - __repr__ is the user's
        return f"<{_qualname(type(value))}: its repr raised {type_name(exc)}>"


def type_name(exc: BaseException) -> str:
    module, name = _module(type(exc)), _qualname(type(exc))
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else name


def type_and_text(exc: BaseException) -> str:
    return f"{type_name(exc)}: {text(exc)}"


def traceback(exc: BaseException, *, chain: bool = True) -> str:
    """Return the text that Python prints, or what there is of it."""
    from traceback import format_exception  # noqa: PLC0415 - each worker imports this module, and few of them see an error

    try:
        return "".join(format_exception(exc, chain=chain))
    except Exception:  # noqa: BLE001 - a SyntaxError whose line is no number, notes that raise
        return "".join(reversed([*_chain_by_hand(exc)])) if chain else _traceback_by_hand(exc)


def _chain_by_hand(exc: BaseException | None) -> Iterator[str]:
    seen: set[int] = set()
    while exc is not None:
        seen.add(id(exc))
        yield traceback(exc, chain=False)
        cause, context = get(exc, "__cause__"), get(exc, "__context__")
        exc = cause if cause is not None or get(exc, "__suppress_context__") else context
        if exc is None or id(exc) in seen:
            return
        yield _CONTEXT if cause is None else _CAUSE


def _traceback_by_hand(exc: BaseException) -> str:
    from traceback import format_tb  # noqa: PLC0415 - as above

    entries = format_tb(get(exc, "__traceback__"))
    head = ["Traceback (most recent call last):\n"] if entries else []
    return "".join([*head, *entries, type_and_text(exc), "\n", *(f"{note}\n" for note in notes(exc))])


def _module(kind: type) -> object:
    try:
        return kind.__module__
    except Exception:  # noqa: BLE001 - a metaclass is the user's
        return None


def _qualname(kind: type) -> str:
    found: str = vars(type)["__qualname__"].__get__(kind)
    return str.__str__(found)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
