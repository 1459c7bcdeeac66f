"""When a reading need not begin, since it would come to what is there."""

import pytest

from service.core.choices import KnownReading, already_read, reading_sha256

ANSWERS = [{"pair_id": f"p{i}", "preferred": i % 2} for i in range(4)]
SAME = reading_sha256(ANSWERS, None)
OTHERS = {
    "another answer": reading_sha256([*ANSWERS[:3], {"pair_id": "p3", "preferred": 0}], None),
    "another order": reading_sha256(ANSWERS[::-1], None),
    "a given text": reading_sha256(ANSWERS, "I like fog."),
}


def test_a_person_without_a_version_is_read() -> None:
    assert not already_read(SAME, None, "vlm-1")


@pytest.mark.parametrize("encoder", ["vlm-1", "vlm-2", None])
def test_a_version_on_its_way_is_waited_for(encoder: str | None) -> None:
    assert already_read(SAME, KnownReading(SAME, "encoding", None), encoder)


def test_a_ready_version_stands_for_its_own_encoder_only() -> None:
    ready = KnownReading(SAME, "ready", "vlm-1")
    assert already_read(SAME, ready, "vlm-1")
    assert not already_read(SAME, ready, "vlm-2")
    assert already_read(SAME, ready, None), "while no encoder is known, it stands"


def test_what_failed_is_read_again() -> None:
    assert not already_read(SAME, KnownReading(SAME, "failed", None), "vlm-1")


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("status", ["encoding", "ready"])
def test_another_reading_is_read(other: str, status: str) -> None:
    known = KnownReading(OTHERS[other], status, "vlm-1")  # type: ignore[arg-type]
    assert not already_read(SAME, known, "vlm-1")
