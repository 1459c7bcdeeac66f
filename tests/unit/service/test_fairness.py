"""A few never leave nothing to the others."""

from collections import Counter

import pytest

from service.core.fairness import Crowd, Queue, share


@pytest.mark.parametrize(("owners", "each"), [(1, 32), (2, 22), (3, 16), (7, 8)])
def test_greedy_owners_get_equal_parts_and_leave_one_part_free(owners: int, each: int) -> None:
    held = [0] * owners
    grown = True
    while grown:
        grown = False
        for i in range(owners):
            if held[i] < share(64, sum(held), cap=64):
                held[i] += 1
                grown = True
    assert max(held) - min(held) <= 1
    assert max(held) == each
    assert 64 - sum(held) >= each - 1


def test_a_cap_holds_and_a_newcomer_always_gets_one() -> None:
    assert share(64, 0, cap=4) == 4
    assert share(64, 62, cap=16) == 2
    assert share(64, 64, cap=16) == 1


def test_who_has_nothing_in_the_queue_comes_in_at_the_turn_that_is_served() -> None:
    crowd = Crowd(running=7, coming=9, waiting=3)
    assert crowd.queue(("t", "ann")).turn == 8
    assert Crowd().queue(("t", None)) == Queue(0, 0, 0, 0)
    assert Crowd(coming=4).queue(("t", None)).turn == 4
    assert Crowd(running=5).queue(("t", None)).turn == 5


def test_each_further_job_comes_a_turn_later_and_holds_up_nobody_else() -> None:
    crowd = Crowd()
    owners = [("t", "ann"), ("t", "ann"), ("t", "bob"), ("t", "ann"), ("t", None), ("u", None)]
    turns = []
    for owner in owners:
        turns.append(crowd.queue(owner).turn)
        crowd.join(owner, turns[-1])
    assert turns == [0, 1, 0, 2, 0, 0]


def test_who_joins_is_counted_for_all_for_the_tenant_and_for_the_person() -> None:
    crowd = Crowd(waiting=2, of_tenant=Counter(t=1))
    crowd.join(("t", "ann"), 0)
    crowd.join(("t", None), 0)
    assert crowd.queue(("t", "ann")) == Queue(4, 3, 1, 1)
    assert crowd.queue(("u", "ann")) == Queue(4, 0, 0, 0)
