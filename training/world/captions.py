"""Captions: they name the content in varied words, and never a look."""

from __future__ import annotations

import re

import numpy as np

from training.world.scene import SETTINGS, SUBJECTS

SUBJECT_WORDS: dict[str, tuple[str, ...]] = {
    "flower": ("flower", "blossom", "bloom"),
    "fish": ("fish", "goldfish"),
    "mushroom": ("mushroom", "toadstool"),
    "boat": ("boat", "sailboat", "ship"),
    "house": ("house", "cottage", "home"),
    "rocket": ("rocket", "spaceship"),
    "balloon": ("balloon", "airship"),
    "tree": ("tree", "oak"),
}
SETTING_PHRASES: dict[str, tuple[str, ...]] = {
    "mountains": ("in the mountains", "before snowy peaks", "in front of mountains"),
    "hills": ("in the hills", "among green hills", "on rolling meadows"),
    "sea": ("at the sea", "on the ocean", "over the water"),
    "town": ("in the town", "in the city", "before tall buildings"),
    "night": ("at night", "under the moon", "under the stars"),
    "desert": ("in the desert", "among sand dunes", "in the sand"),
}
TEMPLATES = (
    "a {subject} {setting}",
    "{subject} {setting}",
    "the {subject} {setting}",
    "a picture of a {subject} {setting}",
    "a painting of a {subject} {setting}",
    "an illustration of a {subject} {setting}",
    "one {subject} {setting}",
    "a {subject} seen {setting}",
)


def caption(subject: int, setting: int, rng: np.random.Generator) -> str:
    """A caption of that content, in words drawn at random."""
    words = SUBJECT_WORDS[SUBJECTS[subject]]
    phrases = SETTING_PHRASES[SETTINGS[setting]]
    template = TEMPLATES[rng.integers(len(TEMPLATES))]
    return template.format(
        subject=words[rng.integers(len(words))], setting=phrases[rng.integers(len(phrases))]
    )


def canonical(subject: int, setting: int) -> str:
    """The plainest caption of that content."""
    return TEMPLATES[0].format(
        subject=SUBJECT_WORDS[SUBJECTS[subject]][0], setting=SETTING_PHRASES[SETTINGS[setting]][0]
    )


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    texts = [
        *TEMPLATES,
        *(word for words in SUBJECT_WORDS.values() for word in words),
        *(phrase for phrases in SETTING_PHRASES.values() for phrase in phrases),
    ]
    return sorted(
        {word for text in texts for word in re.findall(r"[a-z]+", text)} - {"subject", "setting"}
    )
