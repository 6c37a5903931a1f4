"""What ``progress=`` may be, and the sinks it stands for."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from anymap._errors import ConfigError
from anymap._hints import did_you_mean
from anymap._host import loaded
from anymap.progress._announced import announced, make
from anymap.progress._bar import BarSink
from anymap.progress._where import in_notebook, on_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anymap.progress.events import Sink

__all__ = ["ProgressOption", "resolve"]

ProgressOption: TypeAlias = "bool | str | type[Any] | Sink | Mapping[str, Any] | Sequence[ProgressOption] | None"
"""What ``pmap`` takes as ``progress=``."""

SINKS = {
    "bar": "anymap.progress._bar:BarSink",
    "jsonl": "anymap.progress._jsonl:JsonLinesSink",
    "log": "anymap.progress._log:LogSink",
    "rich": "anymap.progress._rich:RichSink",
    "tqdm": "anymap.progress._bar:BarSink",
}
"""Sinks that go by a name: where the class stands that is called without arguments, or with what follows a colon."""

TAKES_A_PATH = ("jsonl",)

NO_SINK = ("none", "off")

PATIENCE = 0.5
"""Seconds that a map lasts before it shows a bar of itself unasked."""


def resolve(progress: ProgressOption = None, *, outermost: bool = True) -> list[Sink]:
    """Return the sinks that ``progress`` asks for.

    * ``None`` or ``"auto"``: a bar if this map is the ``outermost`` one, stderr is a terminal or we are in a notebook,
      and once the map has lasted half a second.
    * ``True``, ``"bar"`` or ``"tqdm"``: a bar at once, wherever stderr goes.
    * ``False``, ``"off"`` or ``"none"``: nothing.
    * ``"rich"``: a bar drawn by rich.
    * ``"log"``: lines of the logger ``anymap.progress``.
    * ``"jsonl:PATH"``: every event as a line of JSON, appended to the file.
    * the name of a sink that an installed package announces by an entry point in the group ``anymap.sinks``.
    * a mapping: a bar with these keyword arguments of tqdm's, and with the class ``tqdm_class`` if that is among them.
    * a tqdm class, or a ``functools.partial`` of one with keyword arguments: a bar drawn with it.
    * any other callable: itself.
    * a list or tuple of these: all of them.

    Raises:
        ConfigError: it is none of these, or cannot be made, or has a keyword that tqdm does not know, or names a file that
            cannot be written to; or what draws it is not installed.
    """
    match progress:
        case None | "auto":
            return [BarSink(delay=PATIENCE)] if outermost and (on_terminal() or in_notebook()) else []
        case bool():
            return [BarSink()] if progress else []
        case str():
            return _named(progress)
        case Mapping():
            return [_bar(**{"tqdm_class": None, **_keywords(progress)})]
        case list() | tuple():
            return [sink for each in progress for sink in resolve(each, outermost=outermost)]
        case _:
            return [_called(progress)]


def check(progress: object) -> None:
    """Raise a ``ConfigError`` if ``progress`` asks for nothing known; make no sink, and open no file."""
    match progress:
        case str():
            _check_name(progress)
        case list() | tuple():
            for each in progress:
                check(each)
        case Mapping():
            _keywords(progress)
        case None | bool():
            pass
        case _ if not callable(progress):
            raise _wrong(progress)


def _check_name(name: str) -> None:
    kind, colon, argument = name.partition(":")
    if name in (*NO_SINK, "auto") or (kind not in SINKS and name in announced()):
        return
    if kind not in SINKS:
        raise _wrong(name, did_you_mean(kind, ["auto", *SINKS, *NO_SINK, *announced()]))
    if bool(argument) != (kind in TAKES_A_PATH) or bool(colon) != bool(argument):
        raise _wrong(name, " The name of a file follows 'jsonl:', and no other name.")


def _named(name: str) -> list[Sink]:
    if name in NO_SINK:
        return []
    _check_name(name)
    kind, _, argument = name.partition(":")
    if kind not in SINKS:
        return [make(name)]
    return [_sink_class(kind)(*filter(None, [argument]))]


def _sink_class(kind: str) -> Any:
    module, _, attribute = SINKS[kind].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("anymap"):
            raise
        raise ConfigError(
            f"progress={kind!r} needs {exc.name.partition('.')[0]}, which is not installed: pip install 'anypmap[{kind}]'"
        ) from exc


def _called(progress: Any) -> Sink:
    if _is_tqdm(progress):
        return BarSink(progress)
    if isinstance(progress, functools.partial) and _is_tqdm(progress.func):
        if progress.args:
            raise ConfigError(f"progress={progress!r}: a tqdm class takes only keyword arguments here")
        return _bar(progress.func, **progress.keywords)
    if callable(progress):
        return progress  # type: ignore[no-any-return]
    raise _wrong(progress)


def _bar(tqdm_class: Any, **options: Any) -> Sink:
    if not (tqdm_class is None or _is_tqdm(tqdm_class)):
        raise ConfigError(f"progress: tqdm_class={tqdm_class!r} is no tqdm class")
    return BarSink(tqdm_class, **options)


def _keywords(options: Mapping[Any, Any]) -> Mapping[str, Any]:
    for name in options:
        if not isinstance(name, str):
            raise ConfigError(f"progress: {name!r} is no keyword argument of tqdm")
    return options


def _is_tqdm(value: object) -> bool:
    # Such a class exists only where tqdm was imported; elsewhere it is not needed.
    tqdm = loaded.variables("tqdm.std").get("tqdm")
    return tqdm is not None and isinstance(value, type) and issubclass(value, tqdm)


def _wrong(progress: object, hint: str = "") -> ConfigError:
    named = [f"{name}:PATH" if name in TAKES_A_PATH else name for name in ("auto", *SINKS, *NO_SINK)]
    names = ", ".join(map(repr, dict.fromkeys([*named, *sorted(announced())])))
    return ConfigError(
        f"progress={progress!r} asks for nothing known.{hint} It takes None, True, False, a name ({names}), "
        "a mapping of tqdm's keyword arguments, a tqdm class, a callable that takes an event, or a list of these."
    )
