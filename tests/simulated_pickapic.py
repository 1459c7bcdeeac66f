"""Preferences whose people, prompts and pairs are in number like Pick-a-Pic's, without files.

4,800 people, of whom about one in six has fewer than four decided pairs and is left out, as
`read_preferences` leaves them out; some 12 prompts each, most of them edited once or twice, a few
typed by many people; some 14 pairs a prompt, of which the winner stays on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from training.data.preferences import CHOICES_PER_PROFILE, Preferences, ReadCounts

WORDS = 4000
POPULAR = 300
"""Prompts that many people type."""


def simulated_pickapic(
    people: int = 4800, seed: int = 0, pairs_per_prompt: float = 14
) -> Preferences:
    """The decided pairs of those people who have at least four."""
    rng = np.random.default_rng(seed)
    popular = [_prompt(rng) for _ in range(POPULAR)]
    rows = _Rows()
    for user in range(people):
        prompts = _prompts(rng, popular)
        pairs = [1 + int(rng.geometric(1 / pairs_per_prompt)) for _ in prompts]
        if rng.random() < 0.17:
            prompts, pairs = prompts[:1], [int(rng.integers(1, CHOICES_PER_PROFILE))]
        if sum(pairs) < CHOICES_PER_PROFILE:
            continue
        for prompt, count in zip(prompts, pairs, strict=True):
            rows.rank(rng, user, prompt, count)
    return rows.preferences()


def _prompts(rng: np.random.Generator, popular: list[str]) -> list[str]:
    """What a person types: heavy tails, edits of the prompt before, now and then what others do."""
    wanted = max(1, round(float(np.exp(rng.normal(np.log(6), 1.2)))))
    prompts: list[str] = []
    while len(prompts) < wanted:
        draw = rng.random()
        if draw < 0.1:
            prompts.append(popular[int(rng.integers(POPULAR))])
        elif draw < 0.4 and prompts:
            prompts.append(f"{prompts[-1]}, {_word(rng)}")
        else:
            prompts.append(_prompt(rng))
    return list(dict.fromkeys(prompts))


def _prompt(rng: np.random.Generator) -> str:
    return " ".join(_word(rng) for _ in range(int(rng.integers(3, 20))))


def _word(rng: np.random.Generator) -> str:
    return f"word{min(WORDS, int(rng.zipf(1.3)))}"


@dataclass
class _Rows:
    user: list[int] = field(default_factory=list)
    caption: list[int] = field(default_factory=list)
    pictures: list[tuple[int, int]] = field(default_factory=list)
    preferred: list[int] = field(default_factory=list)
    captions: dict[str, int] = field(default_factory=dict)
    users: dict[int, int] = field(default_factory=dict)
    made: int = 0

    def rank(self, rng: np.random.Generator, user: int, prompt: str, count: int) -> None:
        """One visit: the winner of each pair meets a new picture."""
        number = self.users.setdefault(user, len(self.users))
        caption = self.captions.setdefault(prompt, len(self.captions))
        winner = self.made
        self.made += 1
        for preferred in rng.integers(2, size=count).tolist():
            shown = (winner, self.made)
            self.made += 1
            winner = shown[preferred]
            self.user.append(number)
            self.caption.append(caption)
            self.pictures.append(shown)
            self.preferred.append(preferred)

    def preferences(self) -> Preferences:
        return Preferences(
            user_P=np.array(self.user),
            caption_P=np.array(self.caption),
            picture_P2=np.array(self.pictures),
            preferred_P=np.array(self.preferred),
            row_P=np.arange(len(self.user)),
            users=[str(10_000 + user) for user in self.users],
            captions=list(self.captions),
            pictures=[str(number) for number in range(self.made)],
            counts=ReadCounts(*([0] * 13)),
        )
