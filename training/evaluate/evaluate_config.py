"""Every option of an evaluation."""

from __future__ import annotations

from pathlib import Path

from training.jobs.shared_options import (
    Adapter,
    EncodeBatch,
    FirstPerson,
    ModelJob,
    PersonalizeBelow,
    PictureBatch,
    PopulationSamples,
    PromptsEach,
    SolverOptions,
    Strength,
    Threads,
    TieBelow,
)
from training.quiz.quizzes import QuizName
from training.world.people import SeedRange, person_seeds

CLASSIFIER = Path(__file__).parents[1] / "content_classifier" / "classifier.safetensors"


class PersonalModel(ModelJob):
    """A model with its adapter, or with another one."""

    adapter: Adapter = None


class PersonalPictures(PersonalModel):
    """What experiments have that ask people of the world and paint for them."""

    first_person: FirstPerson = 0
    prompts: PromptsEach = 4
    tie_below: TieBelow = 0.1
    encode_batch: EncodeBatch = 32
    picture_batch: PictureBatch = 32


class EvaluateConfig(PersonalModel, SolverOptions):
    """What is measured, and with how much.

    Without `taste_adapter` and `probe_data` the bounds and the probe are reported as not measured.
    """

    classifier: Path = CLASSIFIER
    """The judge of content."""
    taste_adapter: Path | None = None
    """Adapter trained on true tastes, for the upper bounds."""
    probe_data: Path | None = None
    """What training.precompute wrote, for the linear probe."""
    prompt_variant: str = "paper"
    """How the VLM reads: as the adapter's data were read."""
    decoding: str = "greedy"
    """How the VLM decodes: as for the adapter's data."""
    quiz: QuizName = "random"
    """Which pairs people answer: painted at random, or as the service asks."""
    split: SeedRange = "test"
    """People of which seeds."""
    first_person: FirstPerson = 0
    people: int = 64
    """How many of them."""
    group: int = 4
    """People who share prompts and seeds, each the control of the others."""
    prompts: PromptsEach = 4
    bound_people: int = 32
    """How many of them the upper bounds are measured on."""
    one_look_quizzes: int = 4
    """Quizzes of each one-look person."""
    one_look_prompts: int = 2
    """Prompts after each of these."""
    content_repeats: int = 2
    """Times that every content is painted by the base."""
    population_samples: PopulationSamples = 20_000
    tie_below: TieBelow = 0.1
    strength: Strength = 1.0
    personalize_below: PersonalizeBelow = None
    threads: Threads = 2
    time_calls: bool = True
    """Whether single calls are timed."""


def check(config: EvaluateConfig) -> None:
    """Raises ValueError for numbers that cannot be measured with."""
    if config.group < 2 or config.people % config.group or config.people < 2 * config.group:
        raise ValueError(
            f"people {config.people}: expected a multiple of group {config.group} (at least 2), "
            f"two groups or more"
        )
    if config.bound_people % config.group or not 0 < config.bound_people <= config.people:
        raise ValueError(
            f"bound_people {config.bound_people}: expected a multiple of {config.group} "
            f"up to {config.people}"
        )


def first_seed(config: EvaluateConfig) -> int:
    """The first person's seed. Prompts, picture seeds and one-look people follow from it too, so
    that what was tuned on one split meets other pictures on another."""
    return person_seeds(config.split, config.people, config.first_person)[0]
