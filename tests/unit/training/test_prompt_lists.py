"""Prompt lists: PartiPrompts as published, and the world's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.fake_pickapic import row, write
from training.data.splits import SplitRule, side_of
from training.rewards.world_rewards import content_named
from training.synthetic_users.prompt_lists import load_prompts
from training.world.scene import CONTENTS

HEADER = "Prompt\tCategory\tChallenge\tNote\n"


def test_the_worlds_list_has_every_content_and_nothing_that_is_trained_on() -> None:
    prompts = load_prompts("world")
    counts = Counter(content_named(prompt) for prompt in prompts.prompts)
    assert set(counts) == set(range(CONTENTS))
    assert max(counts.values()) == 4
    assert len(set(prompts.prompts)) == len(prompts) == 184
    rule = SplitRule(held_out_caption_share=0.1)
    assert {side_of(prompt, rule) for prompt in prompts.prompts} == {"held_out"}


def test_parti_prompts_are_read_as_published(tmp_path: Path) -> None:
    path = tmp_path / "PartiPrompts.tsv"
    rows = (
        'a sign that says "Hello"\tWorld\tText\t\n"Hi" said a cat\tAnimals\tBasic\tnote\n"\tX\t\t\n'
    )
    path.write_text(HEADER + rows)
    prompts = load_prompts(str(path))
    assert prompts.prompts == ('a sign that says "Hello"', '"Hi" said a cat', '"')


def test_the_captions_of_pick_a_pics_files_are_a_list(tmp_path: Path) -> None:
    captions = ["a boat", "some hills", "a boat", None, " ", "a cat"]
    for number, part in enumerate((captions[:3], captions[3:])):
        rows = [row(1, "", "x", "y", 0, has_label=False) | {"caption": c} for c in part]
        write(tmp_path / f"validation_unique-{number:05d}.parquet", rows)
    prompts = load_prompts(str(tmp_path / "validation_unique-*.parquet"))
    assert prompts.prompts == ("a boat", "some hills", "a cat")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Text\tCategory\na\tb\n", "no column 'Prompt'"),
        (HEADER, "holds no prompts"),
        (HEADER + "a cat\tAnimals\t\t\n \tAnimals\t\t\n", "line 3: expected a prompt"),
        (HEADER + '"a\nb"\tAnimals\t\t\n', "line 2: expected a prompt and a category"),
    ],
)
def test_a_file_that_is_no_list_is_refused_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "prompts.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_prompts(str(path))


def test_a_part_is_an_even_choice_and_another_list(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\nb\n\nc\nd\n")
    prompts = load_prompts(str(path))
    assert prompts.first(2).prompts == ("a", "c")
    assert prompts.first(None) is prompts
    assert prompts.first(2).sha256 != prompts.sha256
    with pytest.raises(ValueError, match="5 prompts"):
        prompts.first(5)
    with pytest.raises(ValueError, match="expected 'world'"):
        load_prompts("list.csv")
