"""Entries in shared buffers equal lists of tensors, whoever else shares the buffers."""

import copy
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from threading import Thread

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt3r.models.base import State
from ttt3r.models.growing import Entries

MOVES = ["append", "append", "append", "drop first", "fork", "forget", "hand out", "look"]


class Twin:
    """Slow twin: a list of entries, joined where they are read."""

    def __init__(self, entries: Entries, items: list[torch.Tensor]) -> None:
        self.entries, self.items = entries, items

    def check(self) -> None:
        expected = torch.cat(self.items, 1) if self.items else torch.zeros(2, 0, 3)
        assert torch.equal(self.entries.read("x"), expected)
        assert self.entries.count == len(self.items)

    def append(self, number: int) -> "Twin":
        item = torch.full((2, 1, 3), float(number))
        taken = self.entries.take()
        if taken is None:
            rows = [list(range(self.entries.count))] * 2
            taken = self.entries.moved(rows, None).take()
        assert taken is not None
        taken.buffer("x")[:, taken.slots[-1]] = item[:, 0]
        return Twin(taken, [*self.items, item])


def empty() -> Entries:
    return Entries.of({"x": torch.zeros(2, 0, 3)}, 1)


@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 3)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_entries_equal_lists(moves: list[tuple[str, int]]) -> None:
    """Several states share buffers; whatever one does, the others stay."""
    states = [Twin(empty(), [])]
    handed_out: list[tuple[torch.Tensor, torch.Tensor]] = []
    for number, (move, which) in enumerate(moves):
        at = which % len(states)
        state = states[at]
        if move == "append":
            states[at] = state.append(number)
        elif move == "drop first" and state.items:
            kept = range(1, len(state.items))
            states[at] = Twin(state.entries.keep(kept), state.items[1:])
        elif move == "fork":
            states.append(state.append(number))
        elif move == "forget" and len(states) > 1:
            del states[at]
        elif move == "hand out":
            tensor = state.entries["x"]
            handed_out.append((tensor, tensor.clone()))
        elif move == "look":  # a slot is taken and given back
            state.append(number)
        del state
        for one in states:
            one.check()
        assert all(torch.equal(tensor, before) for tensor, before in handed_out)


def test_a_window_stays_in_its_buffer() -> None:
    state = Twin(empty(), [])
    for number in range(3):
        state = state.append(number)
    place = state.entries.buffer("x").data_ptr()
    for number in range(3, 20):
        state = state.append(number)
        state = Twin(state.entries.keep(range(1, 4)), state.items[1:])
        state.check()
        assert state.entries.buffer("x").data_ptr() == place


def test_what_only_grows_moves_each_time_it_has_doubled() -> None:
    state, places = Twin(empty(), []), list[int]()
    for number in range(64):
        state = state.append(number)
        places.append(state.entries.buffer("x").data_ptr())
    moves = sum(one != other for one, other in pairwise(places))
    assert moves <= 5, "from room for 4 to room for 64 are four doublings, and one before the end"


def test_streams_that_keep_different_entries_are_moved() -> None:
    state = Twin(empty(), [])
    for number in range(4):
        state = state.append(number)
    moved = state.entries.moved([[0, 3], [2]], 2)
    assert moved.read("x")[..., 0].tolist() == [[0.0, 3.0], [2.0, 0.0]]
    assert moved.take() is not None
    with_sizes = empty().moved([[], []], None, {"x": (5,)})
    assert with_sizes.read("x").shape == (2, 0, 5)


def test_nobody_comes_to_know_slots_while_a_free_one_is_looked_for() -> None:
    """Forks may go on in threads of their own; one must not miss what another just took."""
    entries = Twin(empty(), []).append(0).entries
    thread = Thread(target=entries.keep, args=([0],))
    with entries._buffers.lock:
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_share_nothing(again) -> None:
    state = Twin(empty(), []).append(0).append(1)
    twin = Twin(again(state.entries), state.items)
    twin.check()
    twin.append(2).check()
    state.append(3).check()
    state.check()
    twin.check()


@dataclass(frozen=True)
class Collected(State):
    plain: torch.Tensor
    named: Mapping[str, torch.Tensor]


def test_the_size_of_a_state_is_that_of_its_tensors() -> None:
    named = {"b": torch.zeros(5, 2, dtype=torch.int64), "c": torch.zeros(5, 2, 3)}
    for collected in (named, Entries.of(named, 1), Entries.of(named, 1).moved([[0]] * 5, None)):
        state = Collected(torch.zeros(3, 4), collected)
        assert state.nbytes == sum(tensor.nbytes for tensor in state.to_tensors().values())
