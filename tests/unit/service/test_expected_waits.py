"""How long jobs wait, by numbers that are derived by hand."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.actions.queue_places import Place, QueuePlaces, places
from service.core.fairness import Working, expected_waits_s
from service.infra.sql.database import Database
from service.infra.sql.jobs.line import InLine
from service.worker.presence import MeasuredPace

BOTH = ("encode", "generate")


def test_where_there_is_room_nobody_waits() -> None:
    assert expected_waits_s([5.0, 5.0], [], models=1, at_once=2) == [0.0, 0.0]
    assert expected_waits_s([None, 5.0], [None], models=1, at_once=3) == [0.0, 0.0]


def test_one_at_a_time_waits_for_the_sum_of_what_is_before() -> None:
    assert expected_waits_s([3.0, 4.0, 1.0], [2.0], models=1, at_once=1) == [2.0, 5.0, 9.0]


def test_jobs_that_share_a_model_go_on_at_half_the_speed() -> None:
    # 2 and 6 run side by side: the first ends after 4 s, when 4 are left of the other. Then 4 and 4
    # (the third) end together after 8 s more.
    assert expected_waits_s([4.0, 1.0], [2.0, 6.0], models=1, at_once=2) == [4.0, 12.0]


def test_two_models_do_twice_as_much() -> None:
    assert expected_waits_s([4.0, 1.0], [2.0, 6.0], models=2, at_once=2) == [2.0, 6.0]


def test_behind_work_that_is_not_known_there_is_no_guess() -> None:
    assert expected_waits_s([1.0, None, 1.0], [2.0], models=1, at_once=1) == [2.0, 3.0, None]
    assert expected_waits_s([1.0, 1.0], [None], models=1, at_once=1) == [None, None]


def job(name: str, equal: str | None = None, **values: object) -> InLine:
    kept = {"kind": "generate", "runs": False, "started_at": None, "with_another": False}
    kept |= {"tenant": "t", "lane": None, "user_pk": None, "priority": 10, "attempt": 0}
    kept |= {"created_at": datetime.now(UTC), "steps": 10, "n": 1, "readings": None, **values}
    return InLine(id=name, equal=equal or name, **kept)  # type: ignore[arg-type]


def test_a_place_is_what_is_begun_before_and_equal_requests_are_one() -> None:
    began = datetime.now(UTC)
    line = [
        job("runs", equal="e", runs=True, started_at=began),
        job("reads", kind="encode", steps=None, n=None),
        job("first"),
        job("equal of what runs", equal="e", with_another=True),
        job("second", equal="f", n=2),
        job("equal of the second", equal="f", n=2),
        job("third"),
    ]
    model = Working(BOTH, 1, step_s=0.1, reading_s=3.0)
    found = places(line, [model])
    assert {name: place.position for name, place in found.items()} == {
        "reads": 0,
        "first": 0,
        "equal of what runs": 0,
        "second": 1,
        "equal of the second": 1,
        "third": 2,
    }
    # 1 s of what runs, 3 s of the reading, then pictures of 1, 2 and 1 s.
    waits = {name: place.expected_wait_s for name, place in found.items()}
    assert waits["reads"] == pytest.approx(1.0, abs=0.11)
    assert waits["first"] == pytest.approx(4.0, abs=0.11)
    assert waits["second"] == waits["equal of the second"] == pytest.approx(5.0, abs=0.11)
    assert waits["third"] == pytest.approx(7.0, abs=0.11)
    assert waits["equal of what runs"] == 0.0


def test_a_profile_of_many_answers_takes_as_many_readings() -> None:
    several = job("reads", kind="encode", steps=None, n=None, readings=4)
    one = job("reads too", kind="encode", steps=None, n=None, readings=1)
    assert (several.work, one.work) == (4 * one.work, 20)
    waits = places([several, one, job("last")], [Working(BOTH, 1, step_s=0.1, reading_s=3.0)])
    assert waits["reads too"].expected_wait_s == pytest.approx(12.0, abs=0.11)
    assert waits["last"].expected_wait_s == pytest.approx(15.0, abs=0.11)


def test_without_a_measurement_or_a_model_a_place_has_no_guess() -> None:
    line = [job("runs", runs=True, started_at=datetime.now(UTC)), job("waits")]
    for working in ([], [Working(("encode",), 4, reading_s=1.0)], [Working(BOTH, 1)]):
        assert places(line, working)["waits"] == Place(0, None)


def test_what_runs_longer_than_it_should_is_nearly_done() -> None:
    began = datetime.now(UTC) - timedelta(seconds=60)
    line = [job("runs", runs=True, started_at=began), job("waits")]
    wait_s = places(line, [Working(BOTH, 1, step_s=1.0)])["waits"].expected_wait_s
    assert wait_s == pytest.approx(1.0)


def test_a_pace_is_what_was_measured_of_late() -> None:
    pace = MeasuredPace()
    assert pace.of(BOTH, 4) == Working(BOTH, 4, None, None)
    pace.made(20, 2.0)
    pace.made(10, 4.0)
    pace.read(1, 0.5)
    pace.read(3, 2.5)
    assert pace.of(BOTH, 4) == Working(BOTH, 4, 6.0 / 30, 0.75)
    for _ in range(16):
        pace.made(10, 1.0)
    assert pace.of(BOTH, 4).step_s == pytest.approx(0.1)


def test_where_the_queue_cannot_be_looked_at_there_is_no_place(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async def nobody() -> Sequence[Working]:
        return []

    async def place() -> Place | None:
        empty = Database(f"sqlite+aiosqlite:///{tmp_path}/empty.db")  # without a table
        try:
            return await QueuePlaces(empty, nobody).of("a")
        finally:
            await empty.close()

    assert asyncio.run(place()) is None
    assert "a look at the queue failed" in caplog.text
