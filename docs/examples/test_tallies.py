"""The tests name no backend: run them on each by ``ANYMAP_BACKEND=...``."""

import warnings

import tallies

TEXTS = ["one two two", "Two three", ""]


def test_words_are_counted():
    assert tallies.tally_all(TEXTS) == [{"one": 1, "two": 2}, {"two": 1, "three": 1}, {}]


def test_words_are_found():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "this map needs shared memory", UserWarning)
        assert tallies.index(TEXTS) == {"one": {0}, "two": {0, 1}, "three": {1}}
