"""Options that many jobs have, each with the meaning that --help shows, alone or in groups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ppd_model.types import Solver
from training.jobs.configuration import Configuration

ModelName = Annotated[str, Field(description="The model: mini, stable-cascade-1b, stable-cascade.")]
WeightsDir = Annotated[
    Path | None,
    Field(description="Folder of the model's weights; null: as shipped, or from the hub."),
]
Device = Annotated[str, Field(description="Torch device of the models.")]
Out = Annotated[Path, Field(description="Folder that is written.")]
Adapter = Annotated[
    Path | None, Field(description="Adapter file; null: the one that the model comes with.")
]
Seed = Annotated[int, Field(description="What all random choices follow from.")]
Threads = Annotated[int, Field(description="CPU threads of torch.")]
FirstPerson = Annotated[int, Field(description="Number of the first person of the split.")]
PromptsEach = Annotated[int, Field(ge=1, description="Prompts of each person.")]
TieBelow = Annotated[
    float, Field(description="Differences of utility below this are ties, and not answered.")
]
PopulationSamples = Annotated[
    int, Field(description="Tastes drawn from the population, which answers are weighed against.")
]
SamplingSteps = Annotated[
    int | None, Field(description="Denoising steps of a picture; null: the preset's own.")
]
GuidanceScale = Annotated[float, Field(description="Classifier-free guidance of a picture.")]
SnrShift = Annotated[
    float | None,
    Field(
        gt=0,
        description="Times as Stable Cascade's own sampler visits them, which shifts by 2; null: "
        "evenly spaced ones, as diffusers has them.",
    ),
]
GuidanceRescale = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="How far guided noise is scaled back to the standard deviation of the "
        "prompt's: .7 in Stable Cascade's own sampler, 0 in diffusers.",
    ),
]
Strength = Annotated[float, Field(description="How strongly the adapter acts.")]
PersonalizeBelow = Annotated[
    float | None,
    Field(description="Highest diffusion time at which the adapter acts; null: the preset's own."),
]
PictureBatch = Annotated[int, Field(ge=1, description="Pictures that the model makes at a time.")]
EncodeBatch = Annotated[int, Field(ge=1, description="Sets of four that the VLM reads at a time.")]


class ModelJob(Configuration):
    """What a job that runs a model has: which one, where it writes, and what it follows from."""

    preset: ModelName = "mini"
    weights_dir: WeightsDir = None
    out: Out
    threads: Threads = 1
    seed: Seed = 0


class SamplingOptions(Configuration):
    """How pictures are made. The paper takes 30 steps."""

    steps: SamplingSteps = 30
    guidance_scale: GuidanceScale = 4.0
    snr_shift: SnrShift = None
    guidance_rescale: GuidanceRescale = 0.0
    batch: PictureBatch = 32


class SolverOptions(SamplingOptions):
    """The same, with what makes a step."""

    steps: SamplingSteps = None
    solver: Solver | None = None
    """What makes a step; null: the preset's own."""
    guidance_interval: tuple[float, float] | None = None
    """Guidance acts at diffusion times above the first and up to the second; null: the preset's."""
