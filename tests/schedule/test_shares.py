"""Distribution of samples over several processes."""

from __future__ import annotations

import pytest

from ppgs.schedule.shares import Cut


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("batch", "parts"), [(1, 1), (2, 1), (3, 1), (3, 3), (4, 2), (9, 3), (64, 1)])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_sample_has_one_process_and_counts_alike(batch: int, parts: int, ranks: int, together: bool) -> None:
    cuts = [Cut(rank, ranks, together) for rank in range(ranks)]
    assert sorted(slot for cut in cuts for slot in cut.slots(batch, parts)) == list(range(batch))
    weights: dict[int, float] = {}
    for cut in cuts:
        slots = cut.slots(batch, parts)
        pieces = cut.pieces(batch, parts)
        assert [slot for piece in pieces for slot in slots[piece.slots]] == list(slots)
        for piece in pieces:
            assert piece.count <= cut.largest(batch, parts) <= batch // parts
            assert 0 <= piece.slots.start <= piece.slots.stop <= len(slots)
            for slot in slots[piece.slots]:
                weights[slot] = piece.weight / (piece.whole if together else piece.count)
    assert weights == pytest.approx(dict.fromkeys(range(batch), 1 / batch))
    largest = max(piece.count for cut in cuts for piece in cut.pieces(batch, parts))
    assert largest == cuts[0].largest(batch, parts)


def test_shares_differ_by_one_sample_at_most_and_none_is_left_for_the_last() -> None:
    assert [Cut(rank, 3).slots(7, 1) for rank in range(3)] == [(0, 1, 2), (3, 4), (5, 6)]
    assert [Cut(rank, 3).slots(2, 1) for rank in range(3)] == [(0,), (1,), ()]
    assert Cut(2, 3).pieces(2, 1) == []


def test_a_loss_that_ranks_take_together_has_a_piece_on_each() -> None:
    (first,), (last,) = Cut(0, 2, together=True).pieces(1, 1), Cut(1, 2, together=True).pieces(1, 1)
    assert (first.count, last.count) == (1, 0)
    assert first.whole == last.whole == 1


def test_accumulation_is_needed_less_where_processes_share() -> None:
    assert [p.count for p in Cut(0, 1).pieces(4, 2)] == [2, 2]
    assert [p.count for p in Cut(0, 2).pieces(4, 2)] == [2]
