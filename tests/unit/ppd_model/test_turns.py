"""Fair turns between owners, by cost."""

from __future__ import annotations

import pytest

from ppd_model.engine.fair_queue import FairQueue


def order(queue: FairQueue[str]) -> list[str]:
    out = []
    while (item := queue.pop(lambda _: True)) is not None:
        out.append(item)
    return out


def test_owners_go_round_in_turn_and_one_keeps_their_own_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
        queue.push(item[0], 20, item)
    assert len(queue) == 6
    assert order(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_turns_are_counted_in_cost() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(3):
        queue.push("dear", 40, f"dear{number}")
    for number in range(5):
        queue.push("cheap", 10, f"cheap{number}")
    # Starts: dear 0, 40, 80; cheap 0, 10, 20, 30, 40. Equal starts go by arrival.
    expected = ["dear0", "cheap0", "cheap1", "cheap2", "cheap3", "dear1", "cheap4", "dear2"]
    assert order(queue) == expected


def test_who_comes_later_is_served_before_the_rest_of_a_long_line() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.push("many", 20, f"many{number}")
    assert [queue.pop(lambda _: True) for _ in range(3)] == ["many0", "many1", "many2"]
    queue.push("one", 20, "one")
    assert [queue.pop(lambda _: True) for _ in range(2)] == ["one", "many3"]


def test_time_away_earns_no_credit_and_coming_back_at_once_escapes_no_debt() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", 100, "a1")
    queue.push("b", 10, "b1")
    assert queue.pop(lambda _: True) == "a1"
    queue.push("a", 10, "a2")  # begins at 100, not at the present 0
    queue.push("b", 10, "b2")
    assert order(queue) == ["b1", "b2", "a2"]
    queue.push("c", 10, "c1")  # was away all the time: begins now, at 100
    queue.push("b", 10, "b3")
    queue.push("c", 10, "c2")
    assert order(queue) == ["c1", "b3", "c2"]


def test_a_row_without_room_lets_others_by_and_stays_first() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", 10, "large")
    queue.push("b", 10, "small1")
    queue.push("b", 10, "small2")
    assert queue.pop(lambda item: item != "large") == "small1"
    assert queue.pop(lambda _: True) == "large"


def test_what_is_taken_out_costs_nothing() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "b1"):
        queue.push(item[0], 10, item)
    assert queue.take_out(lambda item: item == "a1") == ["a1"]
    assert order(queue) == ["a2", "b1"]


def test_a_row_costs_something() -> None:
    with pytest.raises(ValueError, match="positive, got 0"):
        FairQueue[str]().push("a", 0, "a1")


def test_who_has_many_names_has_no_more_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for i in range(4):
        queue.push(f"shop//{i}", 1, f"shop {i}")
    queue.push("other//x", 1, "other 1")
    queue.push("other//x", 1, "other 2")
    assert order(queue) == ["shop 0", "other 1", "shop 1", "other 2", "shop 2", "shop 3"]


def test_the_names_of_one_owner_take_turns_among_themselves() -> None:
    queue: FairQueue[str] = FairQueue()
    for i in range(3):
        queue.push("shop/ann", 1, f"ann {i}")
    queue.push("shop/bob", 1, "bob")
    queue.push("other", 5, "other")
    assert order(queue) == ["ann 0", "other", "bob", "ann 1", "ann 2"]
    assert len(queue) == 0


def test_what_is_taken_out_below_an_owner_costs_it_nothing() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("shop/ann", 9, "ann")
    queue.push("shop/bob", 1, "bob")
    queue.push("other", 1, "other")
    assert queue.take_out(lambda item: item == "ann") == ["ann"]
    assert (len(queue), order(queue)) == (2, ["bob", "other"])
