"""Values to bytes and back, in one process."""

from __future__ import annotations

import fnmatch
import functools
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymap import NotPicklable
from anymap._host import spill as _spool
from anymap._serialize import packing
from anymap._serialize.object_table import sender_table
from anymap._serialize.packing import Payload, SpilledPayload, Unpacked, pack, spill, unpack

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.versions

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
anything = st.recursive(plain, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(plain, inner))


def as_list(opened: list[Any] | Unpacked) -> list[Any]:
    return [opened[position] for position in range(len(opened))]


@given(values=st.lists(anything) | st.lists(plain) | st.lists(st.tuples(plain, plain)))
def test_what_goes_in_comes_out(values: list[Any]) -> None:
    payload, refused = pack(values, sender_table())
    assert not refused
    assert as_list(unpack(payload)) == values


def test_plain_values_are_one_pickle_and_others_one_each() -> None:
    assert pack([1, 2.0, "three", None], sender_table())[0].ends is None
    assert pack([(1, "a"), (2, "b")], sender_table())[0].ends is None
    assert len(pack([[1], [2]], sender_table())[0].ends or ()) == 2


def test_how_a_kind_of_value_travels_is_found_out_once_for_a_parcel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    reduce = packing.Pickler._reduce
    monkeypatch.setattr(packing.Pickler, "_reduce", lambda self, obj: asked.append(obj) or reduce(self, obj))

    def asked_for(count: int) -> int:
        asked.clear()
        payload, _ = pack([np.zeros(1) for _ in range(count)], sender_table())
        assert len(payload.ends or ()) == count
        return len(asked)

    assert 0 < asked_for(1) == asked_for(100)


def test_nobody_walks_through_a_function_that_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[Any] = []
    walk = packing.Pickler.dump
    monkeypatch.setattr(packing.Pickler, "dump", lambda self, func: walked.append(func) or walk(self, func))
    nameless = lambda x: x + 1  # noqa: E731 - of all functions, one without a name

    table = sender_table()

    def loaded(func: Any) -> Any:
        payload, refused = packing.pack_function(func, table)
        assert not refused
        return packing.unpack_function(payload, table)

    assert loaded(fnmatch.translate) is fnmatch.translate
    assert not walked
    assert loaded(nameless)(1) == 2
    assert walked[0] is nameless


def test_of_one_kind_some_go_by_name_and_some_by_value() -> None:
    by_value = functools.lru_cache(lambda x: 3 * x)
    by_name = functools.lru_cache(abs)
    table = sender_table()
    payload, refused = pack([fnmatch._compile_pattern, by_value, by_name, fnmatch._compile_pattern], table)
    assert not refused
    first, own, of_builtin, last = as_list(unpack(payload))
    assert first is last is fnmatch._compile_pattern
    assert (own(2), of_builtin(-2)) == (6, 2)


class Stubborn:
    """Pickles, and raises when it is loaded."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_a_value_that_cannot_be_loaded_does_no_harm_to_the_others() -> None:
    payload, _ = pack([[1], Stubborn(), [3]], sender_table())
    opened = unpack(payload)
    assert opened[0] == [1]
    assert opened[2] == [3]
    with pytest.raises(ValueError, match="no number"):
        opened[1]


def test_a_value_that_cannot_be_pickled_is_refused_by_its_position() -> None:
    payload, refused = pack([[1], {"deep": [threading.Lock()]}, np.zeros(100_000)], sender_table())
    assert list(refused) == [1]
    assert "lock" in str(refused[1])
    assert "['deep'][0]" in str(refused[1])
    opened = unpack(payload)
    assert opened[0] == [1]
    assert opened[2].sum() == 0


class Huge:
    """There is not the memory to pickle it."""

    def __reduce__(self) -> Any:
        raise MemoryError


def test_a_value_that_there_is_no_memory_to_pickle_is_refused_and_no_other() -> None:
    payload, refused = pack([[1], Huge(), np.ones(100_000), threading.Lock(), "text"], sender_table())
    assert {position: type(exc) for position, exc in refused.items()} == {1: MemoryError, 3: NotPicklable}
    assert "Huge" in str(refused[1])
    opened = as_list(unpack(payload))
    assert (opened[0], opened[1], opened[2].sum(), opened[3], opened[4]) == ([1], None, 100_000, None, "text")


def test_large_plain_values_are_loaded_one_by_one(tmp_path: Path) -> None:
    payload, _ = pack(["a" * 1_000_000, b"b" * 1_000_000], sender_table())
    assert len(payload.ends or ()) == 2
    assert as_list(unpack(spill(payload, str(tmp_path)))) == ["a" * 1_000_000, b"b" * 1_000_000]


def test_large_bytes_are_not_copied_on_their_way_to_a_file(tmp_path: Path) -> None:
    large = b"x" * 3_000_000
    payload, _ = pack([{"large": large}, [large, "small"]], sender_table(), to_file=True)
    assert [piece for piece in payload.pieces() if len(piece) > 1000] == [large, large]
    assert all(piece is large for piece in payload.pieces() if len(piece) > 1000)
    assert as_list(unpack(spill(payload, str(tmp_path)))) == [{"large": large}, [large, "small"]]
    assert as_list(unpack(spill(payload, None))) == [{"large": large}, [large, "small"]]


@pytest.mark.parametrize("value", [b"x" * 3_000_000, (b"x" * 3_000_000, 1), [b"x" * 3_000_000]])
def test_what_goes_in_a_message_is_in_one(value: Any) -> None:
    for_file, _ = pack([value], sender_table(), to_file=True)
    assert len(for_file.pieces()) > 1
    assert isinstance(pack([value], sender_table())[0].data, bytes)
    assert isinstance(for_file.whole().data, bytes)


def test_what_there_is_no_memory_for_does_not_have_the_others_copied() -> None:
    large = b"x" * 3_000_000
    payload, refused = pack([[large], Huge(), (large, 1)], sender_table(), to_file=True)
    assert list(refused) == [1]
    assert sum(piece is large for piece in payload.pieces()) == 2
    assert as_list(unpack(payload)) == [[large], None, (large, 1)]


def test_what_was_packed_does_not_change_with_its_owners_object() -> None:
    text = bytearray(b"x" * 300_000)
    payload, _ = pack([[text]], sender_table())
    text[:] = b"y"
    assert unpack(payload)[0] == [b"x" * 300_000]


def test_a_value_that_cannot_be_pickled_leaves_nothing_of_its_large_parts() -> None:
    large = b"x" * 300_000
    payload, refused = pack([[large], [large, threading.Lock()], [large]], sender_table())
    assert list(refused) == [1]
    assert as_list(unpack(payload)) == [[large], None, [large]]


def test_large_buffers_stay_out_of_the_pickle_and_are_mapped_writable(tmp_path: Path) -> None:
    arrays = [np.arange(100_000), np.arange(5), np.ones(50_000)]
    payload, _ = pack(arrays, sender_table())
    assert len(payload.data) < 2_000
    spilled = spill(payload, str(tmp_path))
    assert isinstance(spilled, SpilledPayload)
    opened = as_list(unpack(spilled))
    assert not list(tmp_path.iterdir()), "the file is removed as soon as it is mapped"
    assert all(np.array_equal(got, sent) for got, sent in zip(opened, arrays, strict=True))
    opened[0][0] = 7
    assert opened[0].ctypes.data % 64 == 0


def test_a_file_for_many_readers_is_kept_and_none_sees_what_another_writes(tmp_path: Path) -> None:
    spilled = spill(pack([np.zeros(100_000)], sender_table())[0], str(tmp_path))
    first, second = (unpack(spilled, keep=True)[0] for _ in range(2))
    first[0] = 1
    assert second[0] == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_small_parcels_make_no_file(tmp_path: Path) -> None:
    payload = spill(pack([[1], [2]], sender_table())[0], str(tmp_path))
    assert isinstance(payload, Payload)
    assert not list(tmp_path.iterdir())


def test_where_there_is_no_room_it_goes_through_the_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, view: memoryview) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(_spool, "write_all", full)
    payload = spill(pack([np.arange(100_000)], sender_table())[0], str(tmp_path))
    assert isinstance(payload, Payload)
    assert not list(tmp_path.iterdir())
    carried = Payload(*pickle.loads(pickle.dumps(payload)))
    assert np.array_equal(as_list(unpack(carried))[0], np.arange(100_000))
