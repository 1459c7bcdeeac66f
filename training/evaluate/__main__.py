"""START HERE: measures the whole path, four choices to a personalised picture, on unseen people.

    python -m training.evaluate --preset mini --out DIR

writes DIR/report.json and DIR/index.html and prints the table. Simulated people whose seeds no
training and no choice of hyperparameters has used answer four pairs of pictures: freshly painted
ones at random or, with `--quiz served`, those that the service would ask. The VLM reads the
answers; the model paints with and without the embedding, same prompt and seed; the world's measured
looks decide which of the two the person prefers.

People come in groups that share prompts and seeds. A person's control is a group mate's picture:
the same prompt and seed, another's profile.

Legend: U people, K prompts of a person, G groups, L looks, D embedding, B pictures.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ppd_model.pipeline import MINI_WEIGHTS_DIR, ImageRequest, Pipeline
from ppd_model.user_encoder import Choice, EncodedUser, EncodingError, UserEncoder
from training.configuration import Configuration, git_commit, parse_command_line, save_resolved
from training.content_classifier.__main__ import ContentClassifier, load_classifier
from training.data.dataset import load_pairs
from training.evaluate.page import write_page
from training.quiz.quizzes import Person, Quiz, QuizName, make_quiz
from training.reports.statistics import as_shares, clustered_mean, mean_cosine, ridge_probe, wins
from training.world import captions, users
from training.world.looks import Standardizer
from training.world.people import SeedRange, person_seeds, taste_of
from training.world.scene import CONTENTS, LOOKS, SETTINGS

FloatArray = NDArray[np.float32]
Pictures = NDArray[np.uint8]
CLASSIFIER = Path(__file__).parents[1] / "content_classifier" / "classifier.safetensors"
ADAPTER_IS_OFF = None
SAME_WITHIN = 0.01
"""Scores (utility) this close are no win for either: rounding alone moves them by about as much
when the same picture is computed in another batch."""


class EvaluateConfig(Configuration):
    """What is measured, and with how much.

    weights_dir: the model and the looks' standardizer.json; None is what is shipped. classifier:
    the judge of content. adapter: one to use in the place of the model's own. taste_adapter: an
    adapter trained on true tastes, for the upper bounds; probe_data: what precompute.py wrote, for
    the linear probe. Without these two the bounds and the probe are reported as not measured.
    strength, personalize_below: of the personalised pictures; None is the preset's own time.
    prompt_variant, decoding: how the VLM reads, which must be how the adapter's data were read.
    quiz: which pairs people answer (training/quiz/quizzes.py).
    """

    preset: str = "mini"
    out: Path
    weights_dir: Path | None = None
    classifier: Path = CLASSIFIER
    adapter: Path | None = None
    taste_adapter: Path | None = None
    probe_data: Path | None = None
    prompt_variant: str = "paper"
    decoding: str = "greedy"
    quiz: QuizName = "random"
    split: SeedRange = "test"
    first_person: int = 0
    people: int = 64
    group: int = 4
    prompts: int = 4
    bound_people: int = 32
    one_look_quizzes: int = 4
    one_look_prompts: int = 2
    content_repeats: int = 2
    population_samples: int = 20_000
    tie_below: float = 0.1
    steps: int = 20
    guidance_scale: float = 4.0
    strength: float = 1.0
    personalize_below: float | None = None
    batch: int = 32
    threads: int = 2
    time_calls: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """What a picture is asked for: the words, the content they name, the seed."""

    text: str
    content: int
    seed: int


@dataclass(frozen=True)
class Shown:
    """Generated pictures with what the judge measured: looks (B x L), subject and setting (B)."""

    images: Pictures
    looks: FloatArray
    content_named: NDArray[np.int64]


class Judge:
    """The world's own eyes: measured looks, and a classifier of content."""

    def __init__(self, standardizer: Standardizer, classifier: ContentClassifier) -> None:
        self.standardizer = standardizer
        self.classifier = classifier

    @classmethod
    def load(cls, standardizer: Path, classifier: Path) -> Judge:
        """From their two files."""
        return cls(Standardizer.load(standardizer), load_classifier(classifier))

    def looks(self, images: Pictures, content_B: NDArray[np.int64]) -> FloatArray:
        """Looks in standard deviations within each picture's content."""
        return self.standardizer.looks(images, content_B)

    def judge(self, images: Pictures, prompts: Sequence[Prompt]) -> Shown:
        """Measure pictures of these prompts."""
        content_B = np.array([prompt.content for prompt in prompts])
        subject_B, setting_B = self.classifier.name(images)
        return Shown(images, self.looks(images, content_B), subject_B * len(SETTINGS) + setting_B)


class Painter:
    """Asks the pipeline for pictures in large batches, and says how far it is."""

    def __init__(self, pipeline: Pipeline, judge: Judge, config: EvaluateConfig) -> None:
        self.pipeline = pipeline
        self.judge = judge
        self.config = config
        self.made = 0
        self.seconds = 0.0

    def paint(
        self, what: str, prompts: Sequence[Prompt], user_emb: Sequence[FloatArray | None]
    ) -> Shown:
        """One picture for each prompt and embedding (None: the base model)."""
        requests = [
            ImageRequest(
                prompt=prompt.text,
                seed=prompt.seed,
                user_emb_D=emb_D,
                strength=self.config.strength,
                steps=self.config.steps,
                guidance_scale=self.config.guidance_scale,
            )
            for prompt, emb_D in zip(prompts, user_emb, strict=True)
        ]
        images: list[Pictures] = []
        started_s = time.monotonic()
        for first in range(0, len(requests), self.config.batch):
            made = self.pipeline.generate(requests[first : first + self.config.batch])
            images += [one.image_HWC for one in made]
            rate = len(images) / (time.monotonic() - started_s)
            print(f"{what}: {len(images)}/{len(requests)} {rate:.1f} pictures/s", flush=True)
        self.made += len(images)
        self.seconds += time.monotonic() - started_s
        return self.judge.judge(np.stack(images), prompts)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    config, _ = parse_command_line(EvaluateConfig, argv, __doc__, file_required=False)
    evaluate(config)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure everything, write the report, print the table; returns the report."""
    check(config)
    torch.set_num_threads(config.threads)
    started_s = time.monotonic()
    save_resolved(config, config.out)
    weights_dir = config.weights_dir or MINI_WEIGHTS_DIR
    judge = Judge.load(weights_dir / "standardizer.json", config.classifier)
    encoder = UserEncoder.load(
        config.preset,
        config.weights_dir,
        prompt_variant=config.prompt_variant,
        decoding=config.decoding,
    )
    pipeline = Pipeline.load(config.preset, config.weights_dir, with_adapter=config.adapter is None)
    if config.adapter is not None:
        pipeline.use_adapter(config.adapter)
    pipeline.set_personalize_below(config.personalize_below)
    if pipeline.encoder_id != encoder.encoder_version:
        raise ValueError(
            f"the adapter reads embeddings of {pipeline.encoder_id!r}, "
            f"the user encoder is {encoder.encoder_version!r}"
        )
    painter = Painter(pipeline, judge, config)

    quiz = make_quiz(config.quiz, judge.looks, config.tie_below)
    people = quiz_people(config, quiz)
    encoded = encode(encoder, [person.choices for person in people], config.batch)
    prompts_GK = group_prompts(config)
    base = paint_base(painter, prompts_GK)
    emb_UD = [user.user_emb_D for user in encoded]
    own = paint_people(painter, "personalised", prompts_GK, emb_UD)
    report: dict[str, Any] = {
        "preset": config.preset,
        "commit": git_commit(),
        "model": pipeline.model_id,
        "adapter_version": pipeline.adapter_version,
        "encoder_version": encoder.encoder_version,
        "people": {"split": config.split, "first": config.first_person, "count": config.people},
        "quiz": config.quiz,
        "wins": wins_report(people, own, base, config),
        "one_look": one_look_report(painter, encoder, quiz, config),
        "content": content_report(painter, base, own, prompts_GK, config),
        "profiles": profiles_report(people, encoded, config),
        "calls": calls_report(pipeline, encoder, people, emb_UD[0], config),
        "bounds": bounds_report(painter, people, prompts_GK, base, config),
    }
    report["pictures"] = {"made": painter.made, "per_s": painter.made / painter.seconds}
    report["minutes"] = (time.monotonic() - started_s) / 60
    report["table"] = table(report)
    (config.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    write_page(config.out, report, gallery(people, encoded, base, own, prompts_GK, config))
    print(format_table(report["table"]))
    print(f"{config.out / 'index.html'} ({report['minutes']:.1f} minutes)")
    return report


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


def quiz_people(config: EvaluateConfig, quiz: Quiz) -> list[Person]:
    """Unseen people, each with four answered pairs."""
    population = users.Population()
    seeds = person_seeds(config.split, config.people, config.first_person)
    return [quiz(taste_of(population, seed), np.random.default_rng([seed, 6])) for seed in seeds]


def encode(encoder: UserEncoder, many: Sequence[Sequence[Choice]], batch: int) -> list[EncodedUser]:
    """The VLM's reading of each person's four choices.

    Raises EncodingError for answers that it cannot read twice.
    """
    encoded: list[EncodedUser] = []
    for first in range(0, len(many), batch):
        part = many[first : first + batch]
        try:
            encoded += encoder.encode_batch(part, seed=first)
        except EncodingError:
            encoded += [_read_again(encoder, one, first + i) for i, one in enumerate(part)]
        print(f"profiles: {len(encoded)}/{len(many)}", flush=True)
    return encoded


def _read_again(encoder: UserEncoder, choices: Sequence[Choice], seed: int) -> EncodedUser:
    """One person's reading, asked for once more where it cannot be used, as the service does."""
    try:
        return encoder.encode(choices, seed=seed)
    except EncodingError:
        return encoder.encode(choices, seed=seed + 1)


def group_prompts(config: EvaluateConfig) -> list[list[Prompt]]:
    """K prompts for each group, contents spread evenly, seeds all different."""
    rng = np.random.default_rng([config.seed, first_seed(config), 8])
    groups = config.people // config.group
    contents = spread_contents(groups * config.prompts, rng)
    prompts = [
        prompt_of(content, first_seed(config) + 1000 + index, rng)
        for index, content in enumerate(contents)
    ]
    return [prompts[g * config.prompts : (g + 1) * config.prompts] for g in range(groups)]


def spread_contents(count: int, rng: np.random.Generator) -> list[int]:
    """`count` content ids: every content once before any comes twice."""
    rounds = -(-count // CONTENTS)
    order = np.concatenate([rng.permutation(CONTENTS) for _ in range(rounds)])
    return [int(content) for content in order[:count]]


def prompt_of(content: int, seed: int, rng: np.random.Generator) -> Prompt:
    """A caption of that content in random words."""
    subject, setting = divmod(content, len(SETTINGS))
    return Prompt(captions.caption(subject, setting, rng), content, seed)


def paint_base(painter: Painter, prompts_GK: list[list[Prompt]]) -> Shown:
    """The base model's pictures of every group's prompts, G * K of them."""
    flat = [prompt for prompts in prompts_GK for prompt in prompts]
    return painter.paint("base", flat, [ADAPTER_IS_OFF] * len(flat))


def paint_people(
    painter: Painter, what: str, prompts_GK: list[list[Prompt]], emb_UD: Sequence[FloatArray]
) -> Shown:
    """Each person's pictures of their group's prompts, U * K of them, person by person."""
    group = painter.config.group
    prompts = [prompt for user in range(len(emb_UD)) for prompt in prompts_GK[user // group]]
    per_person = len(prompts_GK[0])
    return painter.paint(what, prompts, [emb_D for emb_D in emb_UD for _ in range(per_person)])


def wins_report(
    people: Sequence[Person], own: Shown, base: Shown, config: EvaluateConfig
) -> dict[str, Any]:
    """Wins over the base with one's own profile, and with group mates' profiles (the control).

    Tastes lean no way, so the control is one half in expectation whatever the adapter does for all
    alike; "own_over_others", one's own picture against each group mate's, is what tells a personal
    change from a common one.
    """
    rng = np.random.default_rng([config.seed, 9])
    taste_UL = np.stack([person.taste_L for person in people])
    own_UKL, base_UKL = by_person(own, base, len(people), config)
    score_UK = users.utility(taste_UL[:, None], own_UKL)
    base_UK = users.utility(taste_UL[:, None], base_UKL)
    person_UK = np.repeat(np.arange(len(people))[:, None], config.prompts, 1)
    own_win = clustered_mean(wins(score_UK, base_UK, SAME_WITHIN).ravel(), person_UK.ravel(), rng)
    gain_UK = (taste_UL[:, None] * (own_UKL - base_UKL)).sum(-1)
    gain = clustered_mean(gain_UK.ravel(), person_UK.ravel(), rng)

    outcome, own_over_others, group_of = [], [], []
    for user in range(len(people)):
        first = user - user % config.group
        for mate in range(first, first + config.group):
            if mate != user:
                theirs_K = users.utility(taste_UL[user], own_UKL[mate])
                outcome.append(wins(theirs_K, base_UK[user], SAME_WITHIN))
                own_over_others.append(wins(score_UK[user], theirs_K))
                group_of.append(np.full(config.prompts, user // config.group))
    group_R = np.concatenate(group_of)
    control = clustered_mean(np.concatenate(outcome), group_R, rng)
    over_others = clustered_mean(np.concatenate(own_over_others), group_R, rng)
    return {
        "own": own_win.to_dict(),
        "gain_sd": gain.to_dict(),
        "control": control.to_dict(),
        "control_covers_half": control.contains(0.5),
        "own_over_others": over_others.to_dict(),
        "per_person": wins(score_UK, base_UK, SAME_WITHIN).mean(1).tolist(),
        "slope_per_look": look_slopes(taste_UL, own_UKL - base_UKL),
    }


def by_person(
    own: Shown, base: Shown, people: int, config: EvaluateConfig
) -> tuple[FloatArray, FloatArray]:
    """Looks of each person's pictures and of the base's for the same prompts, both U x K x L."""
    own_UKL = own.looks.reshape(people, config.prompts, len(LOOKS))
    base_GKL = base.looks.reshape(-1, config.prompts, len(LOOKS))
    return own_UKL, base_GKL[np.arange(people) // config.group]


def look_slopes(taste_UL: FloatArray, change_UKL: FloatArray) -> dict[str, float]:
    """By how many sd a look moves for each unit of taste for it (least squares)."""
    change_UL = change_UKL.mean(1)
    taste_UL = taste_UL - taste_UL.mean(0)
    slope_L = (taste_UL * change_UL).sum(0) / (taste_UL**2).sum(0)
    return dict(zip(LOOKS, slope_L.tolist(), strict=True))


def one_look_report(
    painter: Painter, encoder: UserEncoder, quiz: Quiz, config: EvaluateConfig
) -> dict[str, Any]:
    """People who care for one look only, in either direction: how far it moves, in sd.

    Each of them answers several quizzes, since four pairs may hardly show a look.
    """
    askers = [
        (look, sign, index)
        for look in range(len(LOOKS))
        for sign in (1.0, -1.0)
        for index in range(config.one_look_quizzes)
    ]
    people = [
        quiz(
            users.single_look(look, sign),
            np.random.default_rng([config.seed, first_seed(config), 7, look, int(sign > 0), index]),
        )
        for look, sign, index in askers
    ]
    encoded = encode(encoder, [person.choices for person in people], config.batch)
    rng = np.random.default_rng([config.seed, first_seed(config), 10])
    contents = spread_contents(config.one_look_quizzes * config.one_look_prompts, rng)
    prompts = [
        prompt_of(content, first_seed(config) + 5000 + i, rng) for i, content in enumerate(contents)
    ]
    base = painter.paint("one look, base", prompts, [ADAPTER_IS_OFF] * len(prompts))
    each = config.one_look_prompts
    asked = [prompts[index * each + k] for _, _, index in askers for k in range(each)]
    base_rows = [index * each + k for _, _, index in askers for k in range(each)]
    embeddings = [user.user_emb_D for user in encoded for _ in range(each)]
    own = painter.paint("one look", asked, embeddings)
    change_RL = own.looks - base.looks[base_rows]
    boot = np.random.default_rng([config.seed, 11])
    effects: dict[str, Any] = {}
    for look, name in enumerate(LOOKS):
        rows = [r for r in range(len(asked)) if askers[r // each][0] == look]
        signed = np.array([askers[r // each][1] * change_RL[r, look] for r in rows])
        quiz_of = np.array([r // each for r in rows])
        effects[name] = clustered_mean(signed, quiz_of, boot).to_dict()
    moved = [name for name, effect in effects.items() if effect["mean"] >= 0.5]
    return {"effect_sd": effects, "moved": moved, "count": len(moved)}


def content_report(
    painter: Painter,
    base: Shown,
    own: Shown,
    prompts_GK: list[list[Prompt]],
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Whether pictures show what was asked, base and personalised, by the classifier.

    kept_of_right: of what the base got right; None where it got nothing right for two people.
    """
    rng = np.random.default_rng([config.seed, first_seed(config), 12])
    extra = [
        prompt_of(content, first_seed(config) + 9000 + index, rng)
        for index, content in enumerate(spread_contents(config.content_repeats * CONTENTS, rng))
    ]
    plain = painter.paint("content, base", extra, [ADAPTER_IS_OFF] * len(extra))
    base_prompts = [prompt for prompts in prompts_GK for prompt in prompts]
    asked = np.array([prompt.content for prompt in [*base_prompts, *extra]])
    named = np.concatenate([base.content_named, plain.content_named])
    wanted_GK = np.array([prompt.content for prompt in base_prompts]).reshape(-1, config.prompts)
    group_U = np.arange(config.people) // config.group
    wanted = wanted_GK[group_U].ravel()
    of_base = base.content_named.reshape(-1, config.prompts)[group_U].ravel()
    right_before = of_base == wanted
    right_after = own.content_named == wanted
    person = np.repeat(np.arange(config.people), config.prompts)[right_before]
    kept = None
    if len(np.unique(person)) > 1:
        kept = clustered_mean(right_after[right_before].astype(float), person, rng).to_dict()
    return {
        "base": accuracies(named, asked),
        "base_same_prompts": accuracies(of_base, wanted),
        "personalised": accuracies(own.content_named, wanted),
        "kept_ratio": float(right_after.mean() / max(right_before.mean(), 1e-9)),
        "kept_of_right": kept,
    }


def accuracies(named: NDArray[np.int64], asked: NDArray[np.int64]) -> dict[str, float]:
    """Shares of pictures whose subject, setting, or both are named as asked."""
    subject = named // len(SETTINGS) == asked // len(SETTINGS)
    setting = named % len(SETTINGS) == asked % len(SETTINGS)
    return {
        "subject": float(subject.mean()),
        "setting": float(setting.mean()),
        "both": float((subject & setting).mean()),
        "pictures": len(named),
    }


def estimates(people: Sequence[Person], config: EvaluateConfig) -> FloatArray:
    """The best estimate of each taste that the four answers allow, U x L."""
    rng = np.random.default_rng([config.seed, 13])
    prior = users.Population().sample(config.population_samples, rng)
    return np.stack(
        [users.posterior_mean(person.delta_4L, person.preferred_4, prior) for person in people]
    )


def profiles_report(
    people: Sequence[Person], encoded: Sequence[EncodedUser], config: EvaluateConfig
) -> dict[str, Any]:
    """What the embedding tells of the taste, linearly, against what the answers could tell."""
    taste_UL = np.stack([person.taste_L for person in people])
    estimate_UL = estimates(people, config)
    report: dict[str, Any] = {
        "cosine_of_best_estimate": mean_cosine(estimate_UL, taste_UL),
        "cosine_of_linear_probe": None,
        "confidence": float(np.mean([user.confidence for user in encoded])),
        "distinct_profiles": len({user.profile for user in encoded}),
    }
    if config.probe_data is not None:
        width = encoded[0].user_emb_D.shape[0]
        seen = load_pairs(config.probe_data, "vlm", width)
        truth = load_pairs(config.probe_data, "taste", width).user_emb_ED[:, : len(LOOKS)]
        probed_UL = ridge_probe(
            seen.user_emb_ED.double().numpy(),
            truth.double().numpy(),
            np.stack([user.user_emb_D for user in encoded]).astype(np.float64),
        )
        report["cosine_of_linear_probe"] = mean_cosine(probed_UL, taste_UL)
        report["probe_trained_on"] = len(seen.user_emb_ED)
    return report


def calls_report(
    pipeline: Pipeline,
    encoder: UserEncoder,
    people: Sequence[Person],
    emb_D: FloatArray,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Seconds of single library calls on `threads` threads, and whether a call repeats exactly."""
    request = ImageRequest(
        prompt=captions.canonical(0, 0),
        seed=7,
        user_emb_D=emb_D,
        steps=config.steps,
        guidance_scale=config.guidance_scale,
    )
    pictures = [png(pipeline.generate([request])[0].image_HWC) for _ in range(2)]
    report: dict[str, Any] = {"identical_bytes": pictures[0] == pictures[1]}
    if config.time_calls:
        report["threads"] = config.threads
        report["picture_s"] = median_s(lambda: pipeline.generate([request]))
        report["profile_s"] = median_s(lambda: encoder.encode(people[0].choices))
    return report


def median_s(call: Any, repeats: int = 3) -> float:
    """Median seconds of a call, after the calls that came before have warmed it up."""
    seconds = []
    for _ in range(repeats):
        started_s = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started_s)
    return float(np.median(seconds))


def png(image_HWC: Pictures) -> bytes:
    """The picture as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def bounds_report(
    painter: Painter,
    people: Sequence[Person],
    prompts_GK: list[list[Prompt]],
    base: Shown,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Wins when the adapter is told the true taste, or the best estimate from the four answers.

    Uses an adapter of the same design trained on true tastes; {} without one.
    """
    if config.taste_adapter is None:
        return {}
    painter.pipeline.use_adapter(config.taste_adapter)
    few = people[: config.bound_people]
    groups = config.bound_people // config.group
    told = {
        "true_taste": np.stack([person.taste_L for person in few]),
        "best_estimate": estimates(few, config),
    }
    width = painter.pipeline.preset.user_emb_dim
    part = base.looks[: groups * config.prompts]
    few_base = Shown(base.images[: len(part)], part, base.content_named[: len(part)])
    report: dict[str, Any] = {}
    for name, feature_UL in told.items():
        emb_UD = np.pad(feature_UL, ((0, 0), (0, width - feature_UL.shape[1])))
        shown = paint_people(painter, name, prompts_GK[:groups], list(emb_UD))
        measured = wins_report(few, shown, few_base, config)
        report[name] = {key: measured[key] for key in ("own", "control", "gain_sd")}
        report[name]["slope_per_look"] = measured["slope_per_look"]
    return report


def table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of what must be reached: what, measured, reach, met (None: not measured)."""
    own, control = report["wins"]["own"], report["wins"]["control"]
    others, content, calls = report["wins"]["own_over_others"], report["content"], report["calls"]

    def row(what: str, measured: str, reach: str, met: bool | None) -> dict[str, Any]:
        return {"what": what, "measured": measured, "reach": reach, "met": met}

    kept_of_right = content["kept_of_right"]
    kept = "" if kept_of_right is None else f" (of what was right: {as_shares(kept_of_right)})"
    rows = [
        row("personalised against base, wins", as_shares(own), ">= 75 %", own["mean"] >= 0.75),
        row(
            "with another's profile (control)",
            as_shares(control),
            "50 % within the interval",
            report["wins"]["control_covers_half"],
        ),
        row(
            "own picture against the one made for another person, wins",
            as_shares(others),
            "> 50 % outside the interval",
            others["low"] > 0.5,
        ),
        row(
            "looks that move >= 0.5 sd for one-look people",
            f"{report['one_look']['count']} of {len(LOOKS)}",
            ">= 4 of 8",
            report["one_look"]["count"] >= 4,
        ),
        row(
            "setting right, base",
            f"{content['base']['setting']:.1%}",
            ">= 95 %",
            content["base"]["setting"] >= 0.95,
        ),
        row(
            "subject right, base",
            f"{content['base']['subject']:.1%}",
            ">= 60 %",
            content["base"]["subject"] >= 0.60,
        ),
        row(
            "content, personalised against base",
            f"{content['kept_ratio']:.1%}{kept}",
            ">= 97 %",
            content["kept_ratio"] >= 0.97,
        ),
        row(
            "same request, same seed",
            "identical bytes" if calls["identical_bytes"] else "different bytes",
            "identical bytes",
            calls["identical_bytes"],
        ),
    ]
    if "profile_s" in calls:
        rows += [
            row(
                f"four choices to profile, library call, {calls['threads']} threads",
                f"{calls['profile_s']:.2f} s",
                "<= 10 s",
                calls["profile_s"] <= 10,
            ),
            row(
                f"one picture, library call, {calls['threads']} threads",
                f"{calls['picture_s']:.2f} s",
                "<= 4 s",
                calls["picture_s"] <= 4,
            ),
        ]
    return rows


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | measured | reach | met |", "|---|---|---|---|"]
    for row in rows:
        met = "yes" if row["met"] else "**no**"
        lines.append(f"| {row['what']} | {row['measured']} | {row['reach']} | {met} |")
    return "\n".join(lines)


def gallery(
    people: Sequence[Person],
    encoded: Sequence[EncodedUser],
    base: Shown,
    own: Shown,
    prompts_GK: list[list[Prompt]],
    config: EvaluateConfig,
    count: int = 8,
) -> list[dict[str, Any]]:
    """Some people for the page: their profile, what they preferred, base and own pictures.

    The first of each group, in order: nobody chose them.
    """
    entries = []
    for user in range(0, min(len(people), count * config.group), config.group):
        preferred = [
            np.asarray(choice.image_1 if choice.preferred else choice.image_0)
            for choice in people[user].choices
        ]
        first_base, first_own = user // config.group * config.prompts, user * config.prompts
        entries.append(
            {
                "profile": encoded[user].profile,
                "prompts": [prompt.text for prompt in prompts_GK[user // config.group]],
                "preferred": preferred,
                "base": list(base.images[first_base : first_base + config.prompts]),
                "own": list(own.images[first_own : first_own + config.prompts]),
            }
        )
    return entries


if __name__ == "__main__":
    main()
