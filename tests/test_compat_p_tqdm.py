"""The compat names beside the real p_tqdm, where it is installed: the same calls, the same answers."""

from __future__ import annotations

import functools
import importlib
import io
import itertools
import os
import re
import subprocess
import sys
import threading

import pytest
from tqdm.std import tqdm as text_bar

from anymap import ConfigError, WorkerLost
from anymap._host import cpus
from anymap.compat import p_tqdm as ours

LISTS = ["p_map", "p_umap", "t_map"]
ITERATORS = ["p_imap", "p_uimap", "t_imap"]
PARALLEL = ["p_map", "p_umap", "p_imap", "p_uimap"]

# The real one forks, whatever threads there are.
pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture
def theirs():
    real = pytest.importorskip("p_tqdm")
    yield real
    # p_tqdm leaves its pool behind when a map ends with an error.
    pools = sys.modules["pathos.multiprocessing"].ProcessPool.__state__
    while pools:
        _, pool = pools.popitem()
        pool.terminate()
        pool.join()


def add(a, b):
    return a + b


def add_end(a, b, end=""):
    return a + b + end


def double(x):
    return 2 * x


def fail_on_two(x):
    if x == 2:
        raise ValueError("two")
    return x


class Doubler:
    def __call__(self, x):
        return 2 * x

    def method(self, x):
        return 2 * x


def as_list(name, result):
    return sorted(result) if "u" in name else list(result)


CALLS = {
    "two lists": lambda f, **kw: f(add, ["1", "2", "3"], ["a", "b", "c"], **kw),
    "partial": lambda f, **kw: f(functools.partial(add_end, end="!"), ["1", "2", "3"], ["a", "b", "c"], **kw),
    "unequal lengths": lambda f, **kw: f(add, [1, 2, 3], [10, 20], **kw),
    "generator beside a list": lambda f, **kw: f(add, [1, 2, 3], (n for n in range(9)), **kw),
    "range": lambda f, **kw: f(double, range(20), **kw),
    "string": lambda f, **kw: f(double, "abc", **kw),
    "dict": lambda f, **kw: f(double, {1: 2, 3: 4}, **kw),
    "set": lambda f, **kw: f(double, {1, 2, 3}, **kw),
    "empty": lambda f, **kw: f(double, [], **kw),
    "one": lambda f, **kw: f(double, [1], **kw),
    "lambda": lambda f, **kw: f(lambda x: -x, [1, 2], **kw),
    "method": lambda f, **kw: f(Doubler().method, [1, 2], **kw),
    "callable object": lambda f, **kw: f(Doubler(), [1, 2], **kw),
    "tqdm's keywords": lambda f, **kw: f(double, [1, 2], desc="d", leave=False, unit="x", **kw),
}


@pytest.mark.parametrize("name", LISTS + ITERATORS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_call_gives_what_p_tqdm_gives(theirs, name, call):
    expected = as_list(name, call(getattr(theirs, name), disable=True))
    assert as_list(name, call(getattr(ours, name), disable=True)) == expected


@pytest.mark.parametrize("name", PARALLEL)
@pytest.mark.parametrize("keywords", [{"num_cpus": 1}, {"num_cpus": 3}, {"num_cpus": 1.0}, {"total": 5}, {"total": 0}])
def test_the_parallel_ones_take_p_tqdms_keywords(theirs, name, keywords):
    generator = (n for n in range(5))
    expected = as_list(name, getattr(theirs, name)(double, range(5), disable=True, **keywords))
    assert as_list(name, getattr(ours, name)(double, generator, disable=True, **keywords)) == expected


@pytest.mark.parametrize("name", LISTS)
def test_the_bar_ends_as_p_tqdms_does(theirs, name):
    def drawn(library):
        screen = io.StringIO()
        getattr(library, name)(double, range(7), file=screen, desc="numbers", unit="n")
        return re.sub(r"[\d.?:]+(?=<|,|n/s|s/n)", "", screen.getvalue().split("\r")[-1].strip())

    assert drawn(ours) == drawn(theirs)


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_lists(name):
    assert type(getattr(ours, name)(double, [1], disable=True)) is list


@pytest.mark.parametrize("name", ITERATORS)
def test_iterators_are_generators_that_can_be_closed(name):
    results = getattr(ours, name)(double, itertools.count(), disable=True)
    assert iter(results) is results
    assert next(results) % 2 == 0
    results.close()
    assert list(results) == []


def printed_by_both(program):
    """Return what a program prints that uses a ``library``, with ours and with the real one.

    In processes of their own: CPython before 3.12.3 may crash on an exception that dill has loaded where tblib, which
    dask brings, makes it keep its frames (github.com/python/cpython/issues/111049).
    """
    pytest.importorskip("p_tqdm")
    ignored = ["-W", "ignore:This process:DeprecationWarning"]
    for name in ("anymap.compat.p_tqdm", "p_tqdm"):
        code = f"import {name} as library\n{program}"
        ran = subprocess.run([sys.executable, *ignored, "-c", code], capture_output=True, text=True, check=True)
        yield ran.stdout.strip()


@pytest.mark.parametrize("name", ["p_imap", "t_imap"])
def test_results_before_an_error_arrive_as_with_p_tqdm(name):
    program = f"""
def fail_on_two(x):
    if x == 2:
        raise ValueError("two")
    return x

got = []
try:
    got.extend(library.{name}(fail_on_two, range(6), disable=True))
except ValueError as exc:
    print(got, exc)
"""
    assert list(printed_by_both(program)) == ["[0, 1] two"] * 2


@pytest.mark.parametrize("name", LISTS + ITERATORS)
def test_an_error_has_the_type_it_was_raised_with_and_names_its_item(name):
    with pytest.raises(ValueError, match="two") as caught:
        list(getattr(ours, name)(fail_on_two, range(6), disable=True))
    assert any("item 2" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("name", PARALLEL)
def test_a_worker_that_dies_is_an_error(name):
    with pytest.raises(WorkerLost, match="item 2"):
        list(getattr(ours, name)(lambda n: os._exit(3) if n == 2 else n, range(6), disable=True))


@pytest.mark.parametrize("name", ITERATORS)
def test_an_input_that_fails_does_so_after_its_items(name):
    def numbers():
        yield from (1, 2)
        raise KeyError("source")

    got = []
    with pytest.raises(KeyError, match="source"):
        got.extend(getattr(ours, name)(double, numbers(), disable=True))
    assert sorted(got) == [2, 4]


def test_a_worker_sees_what_was_set_in_a_module_on_forks_only(tmp_path, monkeypatch):
    (tmp_path / "limits_of_a_test.py").write_text("LIMIT = 0\ndef limit(_):\n    return LIMIT\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("limits_of_a_test")
    module.LIMIT = 7
    seen = {}
    for backend in ("processes", "pathos"):
        monkeypatch.setenv("ANYMAP_BACKEND", backend)
        seen[backend] = ours.p_map(module.limit, range(2), disable=True)
    assert seen == {"processes": [0, 0], "pathos": [7, 7]}


@pytest.mark.parametrize("name", LISTS + ITERATORS)
def test_exceptions_that_a_function_returns_are_results(name):
    program = f"print(sorted(map(repr, library.{name}(ValueError, ['a', 'b'], disable=True))))"
    assert list(printed_by_both(program)) == [str(["ValueError('a')", "ValueError('b')"])] * 2


@pytest.mark.parametrize("name", PARALLEL)
@pytest.mark.parametrize("num_cpus", [0, -1, -0.5, 0.0, "2"])
def test_a_bad_num_cpus_is_an_error_of_the_same_type(theirs, name, num_cpus):
    def raised(library):
        with pytest.raises((ValueError, TypeError)) as caught:
            list(getattr(library, name)(double, [1], num_cpus=num_cpus, disable=True))
        return caught.type

    assert raised(ours) is raised(theirs)


@pytest.mark.parametrize("num_cpus", [0, -0.5, float("inf"), float("nan")])
def test_a_bad_num_cpus_is_told_when_the_function_is_called(num_cpus):
    with pytest.raises(ValueError, match=f"num_cpus={num_cpus}"):
        ours.p_imap(double, [1], num_cpus=num_cpus)


@pytest.mark.parametrize("name", LISTS + ITERATORS)
def test_a_constant_is_a_type_error_that_names_partial(theirs, name):
    with pytest.raises(TypeError):
        list(getattr(theirs, name)(add, [1, 2], 5, disable=True))
    with pytest.raises(TypeError, match=r"argument 2 .* 'int'.*functools\.partial"):
        getattr(ours, name)(add, [1, 2], 5, disable=True)


@pytest.mark.parametrize("name", LISTS + ITERATORS)
def test_no_iterable_is_an_error(name):
    with pytest.raises(TypeError):
        list(getattr(ours, name)(add))


@pytest.mark.parametrize("name", LISTS + ITERATORS)
def test_a_misspelt_keyword_is_an_error(name):
    with pytest.raises(ConfigError, match="num_cpu"):
        list(getattr(ours, name)(double, [1], num_cpu=2))


def test_a_share_is_rounded_and_is_one_worker_at_least(monkeypatch):
    asked = []
    monkeypatch.setattr(ours, "pmap", lambda *args, workers, **options: asked.append(workers))
    monkeypatch.setattr(cpus, "available", lambda: 6)
    for share in (0.01, 0.1, 0.25, 0.4, 0.5, 1.0, 2.0):
        ours.p_map(double, [], num_cpus=share)
    assert asked == [1, 1, 2, 2, 3, 6, 12]


@pytest.mark.parametrize("name", ITERATORS)
def test_an_iterator_does_nothing_before_it_is_asked(name):
    pulled = []
    screen = io.StringIO()
    results = getattr(ours, name)(double, (pulled.append(n) or n for n in range(4)), total=4, file=screen)
    assert not pulled
    assert not screen.getvalue()
    assert sorted(results) == [0, 2, 4, 6]
    assert pulled == [0, 1, 2, 3]
    assert "4/4" in screen.getvalue()


def test_t_imap_runs_an_item_when_its_result_is_asked_for_in_this_thread():
    ran = []
    results = ours.t_imap(lambda n: ran.append((n, threading.get_ident())), itertools.count(), disable=True)
    for n in range(3):
        next(results)
        assert ran[-1] == (n, threading.get_ident())
        assert len(ran) == n + 1
    results.close()


@pytest.mark.parametrize("name", ["t_map", "t_imap"])
def test_the_sequential_ones_take_what_p_tqdms_do_not(name):
    screen = io.StringIO()
    results = getattr(ours, name)(double, (n for n in range(3)), total=3, tqdm=text_bar, file=screen)
    assert list(results) == [0, 2, 4]
    assert "3/3" in screen.getvalue()


@pytest.mark.parametrize("name", LISTS + ITERATORS)
@pytest.mark.parametrize("wrap", [lambda kind: kind, lambda kind: functools.partial(kind, unit="thing")])
def test_the_bar_is_of_the_class_that_is_asked_for(name, wrap):
    closed = []

    class Recorder(text_bar):
        def close(self):
            if not self.disable:
                closed.append((self.n, self.total, self.desc))
            super().close()

    list(getattr(ours, name)(double, range(4), tqdm=wrap(Recorder), file=io.StringIO(), desc="d"))
    assert closed
    assert closed[0][:2] == (4, 4)
    assert closed[0][2].startswith("d")


def test_a_wrapper_that_is_no_class_of_bars_is_an_error():
    with pytest.raises(TypeError, match=r"tqdm\.tqdm"):
        ours.p_map(double, [1], tqdm=lambda results, **_: results)


def test_the_bar_shows_where_stderr_is_no_terminal(capsys):
    ours.p_map(double, range(3))
    assert "3/3" in capsys.readouterr().err


def test_the_users_backend_is_used(monkeypatch):
    monkeypatch.setenv("ANYMAP_BACKEND", "threads")
    assert ours.p_map(lambda _: os.getpid(), range(3), disable=True) == [os.getpid()] * 3


def test_without_a_choice_items_run_in_other_processes(monkeypatch):
    monkeypatch.delenv("ANYMAP_BACKEND", raising=False)
    monkeypatch.delenv("ANYMAP_FORCE_BACKEND", raising=False)
    assert os.getpid() not in ours.p_map(lambda _: os.getpid(), range(3), disable=True)
