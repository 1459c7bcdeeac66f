"""Tenants go round, then addresses, then people; whoever has many of the lower has no more."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice

import pytest

from service.core.turns import Line, Path, Rank, Turn, Turns, path_of


@dataclass(frozen=True)
class Job:
    name: str
    path: Path
    rank: Rank
    work: float = 1.0


def jobs(*spec: str, work: float = 1.0) -> list[Job]:
    """Of "tenant/address/person", in the order of arrival."""
    return [
        Job(f"{who} {i}", path_of(*who.split("/")), (0, float(i), ""), work)
        for i, who in enumerate(spec)
    ]


def served(waiting: list[Job], turns: Turns | None = None) -> list[str]:
    return [job.name.rpartition(" ")[0] for job in Line(turns or Turns(), waiting)]


def test_tenants_go_round_however_many_people_each_has() -> None:
    many = [f"a//{person}" for person in range(16)]
    order = served(jobs(*many, *["b//one"] * 4))
    assert [name[0] for name in order[:8]] == list("abababab")
    assert Counter(order) == Counter([*many, *["b//one"] * 4])


def test_within_a_tenant_people_go_round() -> None:
    order = served(jobs("a//x", "a//x", "a//x", "a//y", "a//y"))
    assert order == ["a//x", "a//y", "a//x", "a//y", "a//x"]


def test_all_sessions_are_one_tenant_divided_by_address() -> None:
    crowd = [f"browser/here/{person}" for person in range(52)]
    order = served(jobs(*crowd, "browser/there/visitor", "a//x"))
    assert order[0] == "a//x", "of equal turns keys come before sessions"
    assert "browser/there/visitor" in order[:4]
    assert order[1].startswith("browser/here")


def test_work_counts_not_the_number_of_jobs() -> None:
    long, short = jobs("a//x", "a//x", work=10.0), jobs(*["b//y"] * 20)
    order = served(long + short)
    assert order[:1] == ["a//x"]
    assert order[1:11] == ["b//y"] * 10
    assert order[11] == "a//x"


def test_nobody_saves_up_turns_while_away() -> None:
    turns = Turns()
    for _ in range(100):
        turns.serve(("a", "", "x"), 1.0)
    order = served(jobs(*["b//y"] * 50, *["a//x"] * 50), turns)
    assert Counter(name[0] for name in order[:11]) in ({"a": 5, "b": 6}, {"a": 6, "b": 5})


def test_encodings_come_before_the_pictures_of_their_person_and_turn() -> None:
    picture, reading = (
        Job("picture", ("a", "", "x"), (10, 1.0, "")),
        Job("reading", ("a", "", "x"), (0, 2.0, "")),
    )
    assert [job.name for job in Line(Turns(), [picture, reading])] == ["reading", "picture"]
    other = Job("other", ("a", "", "y"), (0, 3.0, ""))
    assert next(iter(Line(Turns(), [picture, other]))).name == "other"


def test_the_line_is_what_serving_one_by_one_comes_to() -> None:
    waiting = jobs(*["a//x"] * 3, "a//y", *["browser/h/p"] * 2, "browser/i/q", "c//z", work=3.0)
    expected = list(Line(Turns(), waiting))
    turns, left, found = Turns(), list(waiting), []
    while left:
        (job,) = islice(Line(turns, left), 1)
        turns.serve(job.path, job.work)
        left.remove(job)
        found.append(job)
    assert found == expected


def test_serving_moves_on_who_was_served_and_tells_what_changed() -> None:
    turns = Turns({(): Turn(0.0, 5.0), ("a",): Turn(4.0, 2.0)})
    assert turns.serve(("a", "", "x"), 3.0) == {
        (): Turn(0.0, 5.0),
        ("a",): Turn(8.0, 2.0),
        ("a", ""): Turn(5.0, 0.0),
        ("a", "", "x"): Turn(3.0, 0.0),
    }


@pytest.mark.parametrize("people", [1, 16])
def test_a_key_waits_for_another_as_long_whether_that_has_one_id_or_many(people: int) -> None:
    turns = Turns()
    greedy = jobs(*[f"a//{i % people}" for i in range(16)])
    for job in islice(Line(turns, greedy), 3):
        turns.serve(job.path, job.work)
    order = served([*greedy[3:], *jobs("b//one")], turns)
    assert order.index("b//one") == 0
