from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.training import threads
from tunesmith.training.threads import SET_BY, WORTH_IT, candidates, chosen, settle_threads, threads_given_back, timed


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch):
    """As on a machine of two cores, of which nobody has spoken."""
    for name in SET_BY:
        monkeypatch.delenv(name, raising=False)
    with threads_given_back():
        torch.set_num_threads(2)
        yield monkeypatch


@pytest.mark.parametrize(
    ("most", "wanted"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (12, [1, 2, 4, 8, 12])]
)
def test_powers_of_two_and_the_most_are_tried(most: int, wanted: list[int]) -> None:
    assert candidates(most) == wanted


@given(st.dictionaries(st.integers(1, 64), st.floats(1e-4, 1.0), min_size=1))
def test_the_fewest_are_taken_that_are_about_as_fast_as_the_best(times: dict[int, float]) -> None:
    count, _ = chosen(times)
    assert times[count] <= WORTH_IT * min(times.values())
    assert all(times[fewer] > WORTH_IT * min(times.values()) for fewer in times if fewer < count)


@pytest.mark.parametrize(
    ("times", "wanted"), [({1: 0.010, 2: 0.006}, 2), ({1: 0.010, 2: 0.0095}, 1), ({1: 0.010, 2: 0.025}, 1)]
)
def test_what_is_measured_is_set_and_told(two: pytest.MonkeyPatch, times: dict[int, float], wanted: int) -> None:
    two.setattr(threads, "timed", lambda counts, dtype, width: times)
    count, derived = settle_threads("auto", None, "cpu", torch.float32, 64)
    assert count == torch.get_num_threads() == wanted
    assert derived is not None and (derived.key, derived.value) == ("training.threads", wanted)
    assert "10.0 ms" in derived.why


def test_a_number_that_was_asked_for_is_set_and_not_timed(two: pytest.MonkeyPatch) -> None:
    two.setattr(threads, "timed", lambda *_: pytest.fail("timed for nothing"))
    assert settle_threads(1, None, "cpu", torch.float32, 64) == (1, None)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("name", SET_BY)
def test_the_environment_is_taken_at_its_word(two: pytest.MonkeyPatch, name: str) -> None:
    two.setattr(threads, "timed", lambda *_: pytest.fail("timed for nothing"))
    two.setenv(name, "2")
    count, derived = settle_threads("auto", None, "cpu", torch.float32, 64)
    assert count == 2 and derived is not None and name in derived.why


def test_a_run_that_goes_on_takes_what_it_had_where_there_are_as_many_cores(two: pytest.MonkeyPatch) -> None:
    two.setattr(threads, "timed", lambda counts, dtype, width: {1: 1.0, 2: 0.1})
    two.setattr(threads, "_cores", lambda: 2)
    assert settle_threads("auto", 1, "cpu", torch.float32, 64)[0] == 1
    assert settle_threads("auto", 8, "cpu", torch.float32, 64)[0] in (1, 2)  # of a larger machine: measured here
    assert torch.get_num_threads() <= 2


def test_a_gpu_needs_no_timing(two: pytest.MonkeyPatch) -> None:
    two.setattr(threads, "timed", lambda *_: pytest.fail("timed for nothing"))
    assert settle_threads("auto", None, "cuda", torch.float32, 64)[0] == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_timing_tells_every_number_and_leaves_nothing_changed(two: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    state = torch.get_rng_state()
    with torch.no_grad():
        found = timed([1, 2], dtype, 64)
    assert sorted(found) == [1, 2] and all(seconds > 0 for seconds in found.values())
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_are_given_back_also_where_something_fails() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="on the way"), threads_given_back():
        torch.set_num_threads(before + 1)
        raise ValueError("on the way")
    assert torch.get_num_threads() == before
