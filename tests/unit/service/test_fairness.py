"""A few never leave nothing to the others."""

import pytest

from service.core.fairness import Crowd, Queue, share, spenders


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


def test_who_joins_is_counted_for_all_the_tenant_the_address_and_the_person() -> None:
    crowd = Crowd()
    crowd.join(("t", None, "ann"))
    crowd.join(("t", None, None), 2)
    crowd.join(("browser", "here", "bob"))
    assert crowd.queue(("t", None, "ann")) == Queue(4, 3, 3, 1)
    assert crowd.queue(("t", None, None)) == Queue(4, 3, 3, 0)
    assert crowd.queue(("browser", "there", "cat")) == Queue(4, 1, 0, 0)


def test_the_models_work_on_the_accounts_of_all_who_are_above_a_person() -> None:
    assert spenders("t", None, "ann") == [("user", "ann"), ("tenant", "t")]
    assert spenders("t", None, None) == [("tenant", "t")]
    assert spenders("browser", "here", "bob") == [
        ("user", "bob"),
        ("sessions", "all"),
        ("address", "here"),
    ]
