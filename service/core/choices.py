"""What follows from a person's answers, without asking any database."""

from typing import Literal

from service.core.quiz import CHOICES_PER_EMBEDDING

ProfileState = Literal["collecting", "encoding", "ready", "failed"]


def begins_encoding(decided_in_post: int, decided_in_all: int) -> bool:
    """Whether a post of answers leads to a new profile: it decided something, and four exist."""
    return decided_in_post > 0 and decided_in_all >= CHOICES_PER_EMBEDDING


def profile_state(newest_status: str | None) -> ProfileState:
    """How a person's profile stands, from the status of the newest version that counts."""
    if newest_status is None:
        return "collecting"
    assert newest_status in ("encoding", "ready", "failed"), newest_status
    return newest_status  # type: ignore[return-value]
