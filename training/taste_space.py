"""START HERE for the quiz's coordinates: tastes as directions in picture features.

    python -m training.taste_space --config training/configs/mini_taste_space.yaml

Which pair tells most about a person depends on how pictures can differ and on how tastes spread.
Both are learned here from features that every preset has (the VLM's vision tower, averaged over
patches) and from what a population chose: person u prefers picture 1 of a pair with probability
sigmoid(w_u . delta), delta the difference of the pictures' features, w_u drawn from one normal
distribution over the population. The fit is a variational EM for logistic regression (Jaakkola and
Jordan's bound), and the coordinates that come of it are those in which tastes are standard normal.
No look of the world is read.

Writes OUT/taste_space.safetensors, OUT/choices.safetensors (features and answers, as fitted) and
OUT/report.json; with `pool_dir`, the coordinates of the pool's pairs into its pairs.json, which is
what the service's quiz reads.

Legend: N pictures, P pairs answered, U people, F features, R reduced features, K coordinates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from ppd_model.pictures.reading import KEPT, read_picture
from ppd_model.user_encoder import UserEncoder
from training.data.pickapic import PickAPic
from training.data.preferences import Preferences, read_preferences
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.jobs.shared_options import ModelJob
from training.quiz.taste_model import TasteSpace, fit, held_out_accuracy

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class TasteSpaceConfig(ModelJob):
    """Whose choices, in which features."""

    data: str | tuple[str, ...] | None = None
    """Parquet files in Pick-a-Pic's schema, folders of them, or glob patterns."""
    table: Path | None = None
    """A ChoiceTable that was written before, read in their place."""
    people: int = 300
    """At most so many people."""
    pairs: int = 40
    """Of each, at most."""
    held_out: float = 0.2
    """Share of the people on whom the fit is tested."""
    reduced: int = 24
    """Components of the features in which the population is fitted."""
    dimensions: int = 8
    """Coordinates that are kept."""
    rounds: int = 40
    """Of the fit."""
    pool_dir: Path | None = None
    """A pool whose pairs are written anew with their coordinates."""
    batch: int = 64
    """Pictures that the compressor reads at a time."""


@dataclass(frozen=True)
class ChoiceTable:
    """What a population chose.

    features_NF of the pictures; pictures_P2 in the order shown; preferred_P 0 or 1; person_P
    numbers the people from 0.
    """

    features_NF: NDArray[np.float32]
    pictures_P2: IntArray
    preferred_P: IntArray
    person_P: IntArray

    def deltas(self) -> FloatArray:
        """Features of the second picture minus those of the first."""
        first_PF, second_PF = (self.features_NF[self.pictures_P2[:, side]] for side in (0, 1))
        return (second_PF - first_PF).astype(np.float64)

    def save(self, path: Path) -> None:
        save_file({name: np.ascontiguousarray(value) for name, value in vars(self).items()}, path)

    @classmethod
    def load(cls, path: Path) -> ChoiceTable:
        """Read what `save` wrote. Raises ValueError for tensors that do not fit together."""
        table = cls(**load_file(path))
        pairs = len(table.pictures_P2)
        if not len(table.preferred_P) == len(table.person_P) == pairs or not pairs:
            raise ValueError(f"{path}: {pairs} pairs and other numbers of answers or people")
        if table.pictures_P2.max() >= len(table.features_NF) or table.pictures_P2.min() < 0:
            raise ValueError(f"{path}: a pair shows a picture without features")
        if not np.isin(table.preferred_P, (0, 1)).all():
            raise ValueError(f"{path}: preferred_P holds {set(table.preferred_P.tolist())}")
        return table


def run(config: TasteSpaceConfig) -> dict[str, Any]:
    """Features, choices, fit, report; returns the report.

    Raises ValueError when neither files nor a table are given.
    """
    torch.set_num_threads(config.threads)
    save_resolved(config, config.out)
    encoder = UserEncoder.load(config.preset, config.weights_dir)
    table = choices(config, encoder)
    table.save(config.out / "choices.safetensors")
    people = int(table.person_P.max()) + 1
    fitted_P = table.person_P < round(people * (1 - config.held_out))
    delta_PF = table.deltas()
    space = fit(
        delta_PF[fitted_P],
        table.preferred_P[fitted_P],
        table.person_P[fitted_P],
        reduced=config.reduced,
        dimensions=config.dimensions,
        rounds=config.rounds,
    )
    space.save(config.out / "taste_space.safetensors")
    report = {
        "commit": git_commit(),
        "encoder_version": encoder.encoder_version,
        "people": people,
        "pairs": len(table.person_P),
        "mean_length": float(np.linalg.norm(space.mean_K)),
        "held_out": held_out_accuracy(
            space.coordinates(delta_PF[~fitted_P]),
            table.preferred_P[~fitted_P],
            table.person_P[~fitted_P],
        ),
    }
    if config.pool_dir is not None:
        report["pool_pairs"] = write_coordinates(config.pool_dir, space, encoder, config.batch)
    write_json(config.out / "report.json", report)
    print(json.dumps(report, indent=2))
    return report


@torch.inference_mode()
def picture_features(
    encoder: UserEncoder, images: Sequence[Image.Image], batch: int = 64
) -> NDArray[np.float32]:
    """The vision tower's features that the language model is given, averaged over patches, N x F.

    Pictures go in as the tower sees them among several: whole, never cut into tiles.
    """
    vlm, config = encoder.model.model, encoder.model.config
    features = []
    for first in range(0, len(images), batch):
        part = [image.convert("RGB") for image in images[first : first + batch]]
        pixels = encoder.processor.image_processor([part], return_tensors="pt")["pixel_values"]
        whole_BCHW = pixels.reshape(-1, *pixels.shape[-4:])[: len(part), 0]
        whole_BCHW = whole_BCHW.to(vlm.device, vlm.dtype)
        states = vlm.vision_tower(whole_BCHW, output_hidden_states=True).hidden_states
        features.append(states[config.vision_feature_layer].mean(dim=1).float().cpu().numpy())
    return np.concatenate(features)


def choices(config: TasteSpaceConfig, encoder: UserEncoder) -> ChoiceTable:
    """The table that is given, or one of the people of parquet files.

    Of everybody in an order by chance, the first `people` with at least four decided pairs, and of
    each the first `pairs` pairs. Raises ValueError when neither a table nor files are given.
    """
    if config.table is not None:
        return ChoiceTable.load(config.table)
    if config.data is None:
        raise ValueError("neither table nor data: whose choices shall be learned from?")
    files = PickAPic([config.data] if isinstance(config.data, str) else config.data)
    preferences = read_preferences(files)
    rng = np.random.default_rng([config.seed, 14])
    people = rng.permutation(len(preferences.users))[: config.people]
    rows = [np.flatnonzero(preferences.user_P == person)[: config.pairs] for person in people]
    row_P = np.concatenate(rows)
    shown_N, picture_P2 = np.unique(preferences.picture_P2[row_P], return_inverse=True)
    return ChoiceTable(
        features_NF=features_of(shown_N, preferences, files, encoder, config.batch),
        pictures_P2=picture_P2.reshape(-1, 2).astype(np.int64),
        preferred_P=preferences.preferred_P[row_P],
        person_P=np.repeat(np.arange(len(people)), [len(of) for of in rows]),
    )


def features_of(
    shown_N: IntArray,
    preferences: Preferences,
    files: PickAPic,
    encoder: UserEncoder,
    batch: int,
) -> NDArray[np.float32]:
    """Features of these pictures of the preferences, N x F, read in the order of the files."""
    flat = preferences.picture_P2.ravel()
    pictures, first = np.unique(flat, return_index=True)
    place_N = first[np.searchsorted(pictures, shown_N)]
    source_N2 = np.stack([preferences.row_P[place_N // 2], place_N % 2], axis=1)
    order = np.lexsort((source_N2[:, 1], source_N2[:, 0]))
    jpegs = files.pictures(source_N2[order])
    parts: list[NDArray[np.float32]] = []
    done = 0
    while part := [read_picture(jpeg, KEPT) for jpeg in islice(jpegs, batch)]:
        parts.append(picture_features(encoder, part, batch))
        done += len(part)
        print(f"features of pictures: {done}/{len(shown_N)}", flush=True)
    found_NF = np.concatenate(parts)
    features_NF = np.empty_like(found_NF)
    features_NF[order] = found_NF
    return features_NF


def pool_deltas(pool_dir: Path, encoder: UserEncoder, batch: int = 64) -> FloatArray:
    """Features of the second picture minus the first, of every pair of a pool, P x F."""
    pairs = json.loads((pool_dir / "pairs.json").read_text())["pairs"]
    files = [pool_dir / "images" / image["file"] for pair in pairs for image in pair["images"]]
    images = [read_picture(file.read_bytes(), KEPT) for file in files]
    features_P2F = picture_features(encoder, images, batch).reshape(len(pairs), 2, -1)
    return (features_P2F[:, 1] - features_P2F[:, 0]).astype(np.float64)


def write_coordinates(pool_dir: Path, space: TasteSpace, encoder: UserEncoder, batch: int) -> int:
    """Put the coordinates of the pool's pairs into its pairs.json; returns the number of pairs.

    They take the place of `look_delta`: the quiz reads coordinates in which tastes are about
    standard normal, whatever they mean.
    """
    path = pool_dir / "pairs.json"
    document = json.loads(path.read_text())
    coordinates_PK = space.coordinates(pool_deltas(pool_dir, encoder, batch))
    document["looks"] = [f"taste {k + 1}" for k in range(coordinates_PK.shape[1])]
    for pair, coordinates_K in zip(document["pairs"], coordinates_PK, strict=True):
        pair["look_delta"] = [round(float(value), 3) for value in coordinates_K]
    write_json(path, document, indent=1)
    return len(document["pairs"])


if __name__ == "__main__":
    run_job(run, TasteSpaceConfig, __doc__)
