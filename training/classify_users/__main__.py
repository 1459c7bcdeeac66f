"""START HERE for Figure 2: who answered? A classifier on frozen embeddings names the person.

    python -m training.classify_users --config training/configs/mini_classify_users.yaml [--resume]

300 people answer up to 20 sets of four pairs; the VLM reads each set on the path of serving. A
residual MLP learns which embedding is whose on most sets of each person and is tested on others,
and again with other sets for the test, `folds` times: top-k accuracy for k = 1 ... 64, against
chance and against two oracles that see the true looks of the same four pairs and which picture was
preferred:

- "oracle_classifier": the same classifier, trained on those looks in the place of embeddings;
- "oracle_bayes": the posterior over the known tastes of the 300. It is told the tastes, which the
  classifiers must learn from a few sets, so it is what no reader of four answers can beat.

`data` reads a folder that training.precompute wrote (Pick-a-Pic: no oracle); without it people of
the world answer pictures of the store, and OUT/sets holds what the VLM read, resumable.
Writes OUT/report.json and OUT/top_k.png.

Legend: U people, E sets, 4 answers each, D embedding, L looks, B rows of a batch, F features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ppd_model.user_encoder import UserEncoder
from training.configuration import Configuration, git_commit, parse_command_line, save_resolved
from training.data.shards import ShardFolder, read_manifest, verified
from training.quiz.answered_sets import answer_sets, choices_of, read_sets
from training.reports.plots import INK, OTHER, OURS, as_png
from training.reports.statistics import (
    NothingToDivideByError,
    as_shares,
    clustered_mean,
    clustered_ratio,
)
from training.world import users
from training.world.people import person_seeds, taste_of
from training.world.store import PictureStore

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
TOP_K = (1, 2, 4, 8, 16, 32, 64)
SETS_FOLDER = "sets"


class ClassifyConfig(Configuration):
    """Whose sets, and how the classifier is trained.

    data: what precompute wrote; None asks people of the world about pictures of `store_dir`.
    people and sets: at most so many people, those with most sets first, and sets of each.
    test_sets, validation_sets: of each person, never trained on; training stops where the
    validation loss is least. folds: so many classifiers, each with other test sets.
    """

    out: Path
    data: Path | None = None
    preset: str = "mini"
    weights_dir: Path | None = None
    store_dir: Path | None = None
    people: int = 300
    first_person: int = 0
    sets: int = 20
    split: Literal["train", "validate", "test"] = "test"
    tie_below: float = 0.1
    people_per_shard: int = 8
    encode_batch: int = 32
    test_sets: int = 2
    validation_sets: int = 2
    folds: int = Field(1, ge=1)
    width: int = 512
    layers: int = 4
    dropout: float = 0.3
    lr: float = 5e-4
    weight_decay: float = 0.05
    batch: int = 256
    epochs: int = 200
    patience: int = 20
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True)
class PeoplesSets:
    """E sets of U people. Looks and tastes are there for the world only.

    signed_E4L: looks of the preferred picture minus the other's.
    """

    user_emb_ED: Tensor
    person_E: IntArray
    signed_E4L: FloatArray | None = None
    taste_UL: FloatArray | None = None

    @property
    def people(self) -> int:
        """How many people there are."""
        return int(self.person_E.max()) + 1


@dataclass(frozen=True)
class Parts:
    """Which sets train, stop the training, and test."""

    train_E: IntArray
    validation_E: IntArray
    test_E: IntArray


class ResidualClassifier(nn.Module):
    """Standardised features to scores of the people: `layers` residual layers of one width."""

    mean_F: Tensor
    std_F: Tensor

    def __init__(self, features_EF: Tensor, people: int, width: int, layers: int, dropout: float):
        super().__init__()
        self.register_buffer("mean_F", features_EF.mean(0))
        self.register_buffer("std_F", features_EF.std(0) + 1e-6)
        self.first = nn.Linear(features_EF.shape[1], width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout)
            )
            for _ in range(layers)
        )
        self.last = nn.Sequential(
            nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, people)
        )

    def forward(self, features_BF: Tensor) -> Tensor:
        """B x U scores."""
        x_BW = self.first((features_BF - self.mean_F) / self.std_F)
        for layer in self.layers:
            x_BW = x_BW + layer(x_BW)
        scores_BU: Tensor = self.last(x_BW)
        return scores_BU


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    config, resume = parse_command_line(ClassifyConfig, argv, __doc__, file_required=False)
    run(config, resume)


def run(config: ClassifyConfig, resume: bool = False) -> dict[str, Any]:
    """Read or ask, train, test, write; returns the report."""
    torch.set_num_threads(config.threads)
    save_resolved(config, config.out)
    folder = config.data or ask_people(config, resume)
    sets = load_sets(folder, config.people, config.sets)
    folds = split(
        sets.person_E, config.validation_sets, config.test_sets, config.folds, config.seed
    )
    tested_E = np.concatenate([parts.test_E for parts in folds])
    scores = {"embedding": classify_all(sets.user_emb_ED, sets, folds, config)}
    if sets.signed_E4L is not None and sets.taste_UL is not None:
        looks_EF = torch.from_numpy(sets.signed_E4L).flatten(1).float()
        scores["oracle_classifier"] = classify_all(looks_EF, sets, folds, config, answers=4)
        scores["oracle_bayes"] = bayes_scores(sets.signed_E4L[tested_E], sets.taste_UL)
    report = report_of(scores, sets.person_E[tested_E], folds, config)
    (config.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (config.out / "top_k.png").write_bytes(plot(report))
    print(format_table(report))
    return report


def ask_people(config: ClassifyConfig, resume: bool) -> Path:
    """People of the world answer, the VLM reads, a few people to a shard; returns the folder.

    The shards' tensors have the names that training.precompute gives them.
    """
    if config.store_dir is None:
        raise ValueError("neither data nor store_dir: whose sets shall be classified?")
    store = PictureStore(config.store_dir)
    encoder = UserEncoder.load(config.preset, config.weights_dir)
    made_with = {
        "encoder": encoder.encoder_version,
        "people": [config.split, config.first_person, config.people],
        "sets": config.sets,
        "tie_below": config.tie_below,
    }
    folder = ShardFolder(config.out / SETS_FOLDER, made_with, resume)
    seeds = person_seeds(config.split, config.people, config.first_person)
    population = users.Population()
    for shard, first in enumerate(range(0, len(seeds), config.people_per_shard)):
        name = f"people-{shard:05d}.safetensors"
        if folder.has(name):
            continue
        part = seeds[first : first + config.people_per_shard]
        taste_UL = np.stack([taste_of(population, seed) for seed in part])
        answered = [
            answer_sets(seed, taste_L, store, config.sets, tie_below=config.tie_below)
            for seed, taste_L in zip(part, taste_UL, strict=True)
        ]
        asked = [
            choices_of(one, index, store, np.random.default_rng([seed, 16, index]))
            for seed, one in zip(part, answered, strict=True)
            for index in range(config.sets)
        ]
        what = f"people {first}-{first + len(part)} of {len(seeds)}"
        read = read_sets(encoder, asked, batch=config.encode_batch, what=what)
        tensors = {
            "user_emb_ED": read.user_emb_ED,
            "person_E": np.repeat(np.arange(len(part)), config.sets),
            "taste_UL": taste_UL,
            "support_delta_E4L": np.concatenate([one.deltas(store.looks) for one in answered]),
            "support_preferred_E4": np.concatenate([one.preferred_E4 for one in answered]),
        }
        folder.write(name, {key: torch.from_numpy(value) for key, value in tensors.items()})
    folder.finish()
    return config.out / SETS_FOLDER


def load_sets(folder: Path, people: int, sets: int) -> PeoplesSets:
    """At most `sets` readable sets of each of the `people` who have most of them.

    Raises ValueError for a folder that is not complete or has no embeddings.
    """
    manifest = read_manifest(folder)
    if not manifest["complete"]:
        raise ValueError(f"{folder} is not finished; run its job again with --resume")
    shards = [load_file(path) for path in verified(folder, manifest, "people-")]
    if any("user_emb_ED" not in shard for shard in shards):
        raise ValueError(f"{folder} holds no user embeddings: its people were not read by the VLM")
    emb_ED = torch.cat([shard["user_emb_ED"] for shard in shards]).float()
    counted, persons = 0, []
    for shard in shards:
        persons.append(shard["person_E"].numpy() + counted)
        counted += int(shard["person_E"].max()) + 1
    person_E = np.concatenate(persons)
    kept_E = choose_sets(person_E, torch.isfinite(emb_ED).all(1).numpy(), people, sets)
    _, numbered_E = np.unique(person_E[kept_E], return_inverse=True)
    signed_E4L = taste_UL = None
    if all("support_delta_E4L" in shard for shard in shards):
        delta_E4L = torch.cat([shard["support_delta_E4L"] for shard in shards]).numpy()[kept_E]
        preferred_E4 = torch.cat([shard["support_preferred_E4"] for shard in shards]).numpy()
        sign_E41 = np.where(preferred_E4[kept_E] == 1, 1.0, -1.0)[..., None]
        signed_E4L = (delta_E4L * sign_E41).astype(np.float32)
        tastes = torch.cat([shard["taste_UL"] for shard in shards]).numpy()
        taste_UL = tastes[np.unique(person_E[kept_E])]
    return PeoplesSets(emb_ED[kept_E], numbered_E.astype(np.int64), signed_E4L, taste_UL)


def choose_sets(
    person_E: IntArray, readable_E: NDArray[np.bool_], people: int, sets: int
) -> IntArray:
    """Row numbers of the people with most readable sets (paper, B.2), the first ones of each."""
    rows_of = {int(p): np.flatnonzero((person_E == p) & readable_E) for p in np.unique(person_E)}
    most = sorted(rows_of, key=lambda person: (-len(rows_of[person]), person))[:people]
    return np.concatenate([rows_of[person][:sets] for person in sorted(most)])


def split(
    person_E: IntArray, validation: int, test: int, folds: int, seed: int
) -> tuple[Parts, ...]:
    """Each person's sets in a random order: the first `test` of them test the first fold, the next
    the second, and so on; in each fold the `validation` ones that follow, round the end, stop the
    training, and the others train. No set tests two folds.

    Raises ValueError for someone without a set to train on, or to test a fold.
    """
    rng = np.random.default_rng([seed, 17])
    rows_U = [rng.permutation(np.flatnonzero(person_E == person)) for person in np.unique(person_E)]
    for person, rows in enumerate(rows_U):
        if len(rows) <= validation + test:
            raise ValueError(
                f"person {person} has {len(rows)} sets: {validation} validate, {test} test, "
                "none is left to train on"
            )
        if len(rows) <= (folds - 1) * test:
            raise ValueError(
                f"person {person} has {len(rows)} sets: too few for {folds} folds with {test} to "
                f"test each"
            )
    return tuple(_fold(rows_U, fold * test, validation, test) for fold in range(folds))


def _fold(rows_U: Sequence[IntArray], first: int, validation: int, test: int) -> Parts:
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for rows in rows_U:
        tested = rows[first : first + test]
        others = np.concatenate([rows[first + test :], rows[:first]])
        for part, own in zip(
            parts, (others[validation:], others[:validation], tested), strict=True
        ):
            part.extend(own.tolist())
    return Parts(*(np.array(sorted(rows), dtype=np.int64) for rows in parts))


def classify_all(
    features_EF: Tensor,
    sets: PeoplesSets,
    folds: Sequence[Parts],
    config: ClassifyConfig,
    answers: int = 1,
) -> FloatArray:
    """Train a classifier for each fold; scores of all test sets, fold by fold, E x U."""
    return np.concatenate([classify(features_EF, sets, parts, config, answers) for parts in folds])


def classify(
    features_EF: Tensor, sets: PeoplesSets, parts: Parts, config: ClassifyConfig, answers: int = 1
) -> FloatArray:
    """Train; scores of the test sets, E x U.

    answers: features that are made of so many equal blocks have their blocks shuffled while
    training, since the order of the answers means nothing.
    """
    generator = torch.Generator().manual_seed(config.seed)
    person_E = torch.from_numpy(sets.person_E)
    train_E, validation_E = (torch.from_numpy(rows) for rows in (parts.train_E, parts.validation_E))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ResidualClassifier(
            features_EF[train_E], sets.people, config.width, config.layers, config.dropout
        )
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        best, waited = math.inf, 0
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        for epoch in range(config.epochs):
            model.train()
            order = train_E[torch.randperm(len(train_E), generator=generator)]
            for rows in order.split(config.batch):
                shown = shuffle_blocks(features_EF[rows], answers, generator)
                optimiser.zero_grad()
                functional.cross_entropy(model(shown), person_E[rows]).backward()
                optimiser.step()
            loss = validation_loss(model, features_EF[validation_E], person_E[validation_E])
            if loss < best:
                best, waited = loss, 0
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            else:
                waited += 1
                if waited == config.patience:
                    break
            if epoch % 10 == 0:
                print(f"epoch {epoch} validation loss {loss:.3f} best {best:.3f}", flush=True)
    model.load_state_dict(kept)
    model.eval()
    with torch.no_grad():
        scores: FloatArray = model(features_EF[torch.from_numpy(parts.test_E)]).numpy()
    return scores


@torch.no_grad()
def validation_loss(model: ResidualClassifier, features_EF: Tensor, person_E: Tensor) -> float:
    """Cross-entropy of sets that do not train."""
    model.eval()
    return float(functional.cross_entropy(model(features_EF), person_E))


def shuffle_blocks(features_BF: Tensor, blocks: int, generator: torch.Generator) -> Tensor:
    """Each row's equal blocks in a random order."""
    if blocks == 1:
        return features_BF
    parts = features_BF.unflatten(1, (blocks, -1))
    order = torch.rand(len(parts), blocks, generator=generator).argsort(1)
    return torch.take_along_dim(parts, order[..., None], 1).flatten(1)


def bayes_scores(signed_E4L: FloatArray, taste_UL: FloatArray) -> FloatArray:
    """Log probability of each set's answers for each known taste (Bradley-Terry), E x U."""
    margin_E4U = users.CHOICE_SCALE * signed_E4L @ taste_UL.T
    scores: FloatArray = (-np.logaddexp(0, -margin_E4U).sum(axis=1)).astype(np.float32)
    return scores


def ranks(scores_EU: FloatArray, person_E: IntArray) -> FloatArray:
    """How many people score above the true one; those who score the same count one half."""
    true_E1 = scores_EU[np.arange(len(person_E)), person_E][:, None]
    above = (scores_EU > true_E1).sum(1)
    same = (scores_EU == true_E1).sum(1) - 1
    found: FloatArray = above + same / 2
    return found


def report_of(
    scores: dict[str, FloatArray],
    person_E: IntArray,
    folds: Sequence[Parts],
    config: ClassifyConfig,
) -> dict[str, Any]:
    """Top-k accuracies with intervals over people, chance, and ratios to the oracles.

    scores: of the test sets, whose people are person_E.
    """
    rng = np.random.default_rng([config.seed, 18])
    people = len(np.unique(person_E))
    counted = [k for k in TOP_K if k <= people]
    within = {
        name: {k: (ranks(scores_EU, person_E) < k).astype(float) for k in counted}
        for name, scores_EU in scores.items()
    }
    return {
        "commit": git_commit(),
        "people": people,
        "folds": len(folds),
        "sets": {name: len(rows) for name, rows in vars(folds[0]).items()},
        "seed": config.seed,
        "chance": {str(k): k / people for k in counted},
        "top": {
            name: {str(k): clustered_mean(of[k], person_E, rng).to_dict() for k in counted}
            for name, of in within.items()
        },
        "share_of_oracle": {
            name: {str(k): share(within["embedding"][k], of[k], person_E, rng) for k in counted}
            for name, of in within.items()
            if name != "embedding"
        },
    }


def share(
    ours_E: FloatArray, oracle_E: FloatArray, person_E: IntArray, rng: np.random.Generator
) -> dict[str, Any] | None:
    """Our accuracy over the oracle's; None where the oracle is too seldom right to divide by."""
    try:
        return clustered_ratio(ours_E, oracle_E, person_E, rng).to_dict()
    except NothingToDivideByError:
        return None


def format_table(report: dict[str, Any]) -> str:
    """Top-k accuracies as a Markdown table."""
    names = list(report["top"])
    lines = ["| k | chance | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for k, chance in report["chance"].items():
        cells = [
            "{mean:.1%} [{low:.1%}, {high:.1%}]".format(**report["top"][name][k]) for name in names
        ]
        lines.append(f"| {k} | {chance:.1%} | " + " | ".join(cells) + " |")
    for name, shares in report["share_of_oracle"].items():
        lines.append(f"\nof {name}, top-16: {as_shares(shares.get('16'))}")
    return "\n".join(lines)


def plot(report: dict[str, Any]) -> bytes:
    """Top-k accuracy over k (Figure 2)."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    ks = [int(k) for k in report["chance"]]
    looks = {
        "embedding": ("embedding", OURS, "-"),
        "oracle_classifier": ("true looks, same classifier", INK, "--"),
        "oracle_bayes": ("true looks and tastes, Bayes", INK, ":"),
    }
    for name, top in report["top"].items():
        label, colour, line = looks[name]
        mean = [top[str(k)]["mean"] for k in ks]
        axes.plot(ks, mean, line, color=colour, label=label, marker="o", markersize=3)
        if name == "embedding":
            low, high = ([top[str(k)][end] for k in ks] for end in ("low", "high"))
            axes.fill_between(ks, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(ks, list(report["chance"].values()), color=OTHER, label="chance")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set_ylim(0, 1)
    axes.set_xlabel("k")
    axes.set_ylabel(f"top-k accuracy of {report['people']} people")
    axes.legend(frameon=False)
    return as_png(figure)


if __name__ == "__main__":
    main()
