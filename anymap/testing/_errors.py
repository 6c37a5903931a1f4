"""The part of the exam on what fails: it is the item's error, whole, and no other's."""

from __future__ import annotations

from typing import Any

from anymap._errors import MapError, NotPicklable, RemoteError
from anymap._serialize.failures import failure
from anymap.testing import _samples as samples
from anymap.testing._exam import Exam, promises
from anymap.testing._verdicts import applies_if, expect, expect_equal, expect_raises

_IN_MEMORY = "memory is shared: nothing is pickled"


@promises
class Errors(Exam):
    """Errors of items."""

    def test_the_first_error_ends_the_map_and_keeps_its_type_and_its_item(self) -> None:
        error = expect_raises(ValueError, lambda: self.map(samples.Fail(ValueError, 7), range(40)))
        expect_equal(str(error), "item 7", "the error's text")
        self._expect_failure(error, 7)
        expect(any("item 7" in note for note in error.__notes__), f"no note names the item: {error.__notes__}")

    def test_errors_can_take_the_places_of_results(self) -> None:
        got = self.map(samples.Fail(KeyError, 3, 17), range(20), on_error="return")
        self._expect_errors(got, KeyError, 3, 17)

    def test_failed_items_can_be_left_out(self) -> None:
        got = self.map(samples.Fail(KeyError, 3, 17), range(20), on_error="skip")
        expect_equal(got, [x for x in range(20) if x not in (3, 17)], "results without the failed ones")

    def test_errors_can_be_raised_together_with_all_results_kept(self) -> None:
        error = expect_raises(MapError, lambda: self.map(samples.Fail(KeyError, 3, 17), range(20), on_error="group"))
        expect_equal([one.index for one in error.failures], [3, 17], "the failed items")
        self._expect_errors(list(error.results), KeyError, 3, 17)

    def test_a_failed_item_is_tried_again_as_often_as_asked(self) -> None:
        got = self.map(samples.Fail(OSError, 5), range(10), retries=2, on_error="return")
        self._expect_errors(got, OSError, 5)
        found = failure(got[5])
        expect(found is not None and found.attempts == 3, f"what is known of the error: {found}")

    def test_an_error_whose_constructor_takes_other_arguments_comes_whole(self) -> None:
        got = self.map(samples.Fail(samples.Demanding, 2), range(4), on_error="return")
        self._expect_errors(got, samples.Demanding, 2)
        expect_equal((got[2].code, str(got[2])), (2, "2: reason"), "its attribute and its text")

    def test_an_error_that_cannot_be_sent_is_described(self) -> None:
        got = self.map(samples.Fail(samples.Unsendable, 2), range(4), on_error="return")
        self._expect_errors(got, samples.Unsendable if self.traits.shares_memory else RemoteError, 2)
        expect("item 2" in str(got[2]), f"the error does not say what it was: {got[2]}")

    def test_system_exit_is_the_items_error_and_the_backend_survives(self) -> None:
        self._expect_survival(SystemExit)

    def test_an_error_that_is_no_exception_is_the_items_error_and_the_backend_survives(self) -> None:
        self._expect_survival(samples.Farewell)

    def test_a_keyboard_interrupt_in_a_worker_is_the_items_error(self) -> None:
        applies_if(not self.traits.inline, "it is the caller's own thread: the interrupt is his")
        self._expect_survival(KeyboardInterrupt)

    def test_a_result_that_cannot_be_pickled_is_that_items_error(self) -> None:
        applies_if(not self.traits.shares_memory, _IN_MEMORY)
        self._expect_errors(self.map(samples.seal, range(6), on_error="return"), NotPicklable, 3)

    def test_an_item_that_cannot_be_pickled_is_that_items_error(self) -> None:
        applies_if(not self.traits.shares_memory, _IN_MEMORY)
        items = [samples.seal(x) for x in range(6)]
        self._expect_errors(self.map(samples.number_of, items, on_error="return"), NotPicklable, 3)

    def _expect_survival(self, kind: type[BaseException]) -> None:
        candidate = self.make_backend()
        got = self.map(samples.Fail(kind, 4), range(20), backend=candidate, on_error="return")
        self._expect_errors(got, RemoteError, 4)
        expect(kind.__name__ in str(got[4]), f"the error does not say what it was: {got[4]}")
        expect_equal(self.map(samples.square, range(5), backend=candidate), [0, 1, 4, 9, 16], "the next map")

    def _expect_errors(self, got: list[Any], kind: type[BaseException], *bad: int) -> None:
        """Expect an error of that kind in these places, and each item as its own result in the others."""
        wanted = [kind if x in bad else x for x in range(len(got))]
        expect_equal([type(value) if isinstance(value, Exception) else value for value in got], wanted, "the results")
        for index in bad:
            self._expect_failure(got[index], index)

    def _expect_failure(self, error: Exception, index: int) -> None:
        found = failure(error)
        expect(found is not None and found.index == index, f"failure() does not say that it is item {index}: {found}")
