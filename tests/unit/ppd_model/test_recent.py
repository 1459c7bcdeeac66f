"""What is kept, and what is forgotten first."""

from __future__ import annotations

import pytest

from ppd_model.sampling.recently_used import Recent


def test_the_longest_unused_is_forgotten_first() -> None:
    made: list[str] = []

    def get(key: str) -> str:
        return recent.get_or_make(key, lambda: made.append(key) or key.upper())

    recent: Recent[str, str] = Recent(2)
    assert [get(key) for key in ("a", "b", "a", "c", "a", "b")] == ["A", "B", "A", "C", "A", "B"]
    assert made == ["a", "b", "c", "b"]  # "b" was forgotten when "c" came
    assert (recent.hits, recent.misses, len(recent)) == (2, 4, 2)
    recent.clear()
    assert get("a") == "A"
    assert len(recent) == 1


def test_what_cannot_be_made_is_not_kept() -> None:
    recent: Recent[str, int] = Recent(2)
    with pytest.raises(ZeroDivisionError):
        recent.get_or_make("a", lambda: 1 // 0)
    assert recent.get_or_make("a", lambda: 5) == 5


def test_room_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Recent(0)
