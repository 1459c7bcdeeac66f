"""Writes the world as Pick-a-Pic: the same columns, the same kinds of rows, captions people type.

    python -m training.world.export --out runs/mini/preferences --store runs/mini/world --users 400

writes OUT/data/train-*.parquet in the schema of data/pickapic.py; OUT/truth.npz, which only
evaluation and the upper bounds read (world/truth.py); and OUT/export.json with what was written and
what JPEG costs. Pictures come from the store; without one it is painted first.

People are simulated: each has a hidden taste over looks and answers by Bradley-Terry (tastes.py),
and favourite subjects and settings, which decide the captions they type and nothing else. How much
they answer varies as it does in Pick-a-Pic, and a few leave after one to three answers. Some pairs
are ties, some rows were never labelled.

Pictures are JPEG of quality 100 without colour subsampling, 26 KB each. Looks measured after it
differ from those before by 0.04 sd (root mean square over the looks; most for detail, 0.09). At
quality 98 it would be 0.11 (detail 0.26), at 95 0.21 (detail 0.53): `jpeg_loss` measures it anew
for each export.

Dimension letters: U people, S subjects, T settings, L looks, N pictures.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, PositiveInt

from ppd_model.pictures.reading import read_picture
from training.data.pickapic import SCHEMA
from training.jobs.command_line import run_job
from training.jobs.configuration import Configuration
from training.jobs.files import write_json
from training.jobs.shared_options import FirstPerson, Out, Seed, TieBelow
from training.world import captions, tastes
from training.world.people import answer, person_seeds, taste_of
from training.world.scene import LOOKS, SETTINGS, SUBJECTS, content_id
from training.world.store import PictureStore, paint_store
from training.world.truth import GroundTruth

JPEG_QUALITY = 100
ROWS_PER_GROUP = 500
SUBJECT_CONCENTRATION = 0.5
"""Of the Dirichlet that a person's subjects are drawn from: most people have two or three."""
SETTING_CONCENTRATION = 1.0
EVERYTHING_SHARE = 0.15
"""How often anyone types a caption of any content at all."""
PAIRS_PER_CAPTION = 4
"""At most: people rank several pairs of the caption they typed."""
SHORT_VISITS = 0.03
"""Share of people who leave after one to three answers."""
SPREAD = 0.5
"""Standard deviation of the logarithm of how many pairs people answer."""
NOT_LABELLED = 0.05
FIRST_ANSWER = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
SECONDS_BETWEEN_ROWS = 7
MODEL = "procedural-world-1"

FloatArray = NDArray[np.float32]


class ExportConfig(Configuration):
    """How many people answer how many pairs of which pictures."""

    out: Out
    store: Path = Path("runs/mini/world")
    """Pictures that training.world.store painted; where there are none they are painted first."""
    users: PositiveInt = 400
    """How many people."""
    pairs: int = Field(80, ge=4)
    """Answered by a person, on average."""
    seed: Seed = 0
    first_person: FirstPerson = 0
    tie_below: TieBelow = 0.1
    paint_count: int = 30_000
    """Pictures that are painted where there are none."""
    paint_seed: int = 1
    """What these follow from."""


@dataclass(frozen=True)
class Visitor:
    """One person: `seed` is the user id. Shares say what captions they type."""

    seed: int
    taste_L: FloatArray
    subject_share_S: FloatArray
    setting_share_T: FloatArray
    pairs: int


@dataclass(frozen=True)
class Comparison:
    """One row to be: two pictures of the store and what the person said of them.

    preferred: 0 or 1, None for a tie. labelled: whether they answered at all.
    """

    user: int
    caption: str
    pictures: tuple[int, int]
    preferred: int | None
    labelled: bool


def export(
    config: ExportConfig, store: PictureStore, *, rows_per_file: int = 8_000, measured: int = 960
) -> dict[str, Any]:
    """Write everything; returns what export.json holds. `measured` pictures tell JPEG's loss.

    Raises ValueError for a folder that holds a data set already.
    """
    out, seed = config.out, config.seed
    data, unfinished = out / "data", out / "data.unfinished"
    if data.exists():
        raise ValueError(f"{data} is there already: choose another folder")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    crowd = visitors(config.users, config.pairs, seed, config.first_person)
    by_content = store.by_content()
    rows = [
        row for visitor in crowd for row in answers(visitor, store, by_content, config.tie_below)
    ]
    order = np.random.default_rng([seed, 21]).permutation(len(rows))
    uid_of = cache(lambda picture: picture_uid(store.pictures[picture]))
    prompts = _prompt_counts(rows)
    files = -(-len(rows) // rows_per_file)
    for number in range(files):
        path = unfinished / f"train-{number:05d}-of-{files:05d}.parquet"
        with pq.ParquetWriter(path, SCHEMA) as writer:
            first, end = number * rows_per_file, min((number + 1) * rows_per_file, len(rows))
            for begin in range(first, end, ROWS_PER_GROUP):
                places = range(begin, min(begin + ROWS_PER_GROUP, end))
                table = [
                    _record(place, rows[order[place]], prompts, uid_of, store) for place in places
                ]
                writer.write_table(pa.Table.from_pylist(table, schema=SCHEMA))
        print(f"{path.name}: {end}/{len(rows)} rows", flush=True)
    used = sorted({picture for row in rows for picture in row.pictures})
    _truth(crowd, store, used, [uid_of(picture) for picture in used]).save(out / "truth.npz")
    report = {
        "people": config.users,
        "rows": len(rows),
        "pictures": len(used),
        "ties": sum(row.preferred is None for row in rows if row.labelled),
        "not_labelled": sum(not row.labelled for row in rows),
        "seed": seed,
        "first_person": config.first_person,
        "tie_below": config.tie_below,
        "jpeg": {"quality": JPEG_QUALITY, **jpeg_loss(store, used, measured)},
    }
    write_json(out / "export.json", report)
    unfinished.rename(data)
    return report


def visitors(people: int, pairs: int, seed: int, first_person: int) -> list[Visitor]:
    """The people: taste by their own seed; subjects, settings and patience by (seed, person)."""
    population = tastes.Population()
    return [
        _visitor(person, taste_of(population, person), pairs, np.random.default_rng([seed, person]))
        for person in person_seeds("train", people, first_person)
    ]


def _visitor(person: int, taste_L: FloatArray, pairs: int, rng: np.random.Generator) -> Visitor:
    stays = rng.random() >= SHORT_VISITS
    factor = float(np.exp(rng.normal(-(SPREAD**2) / 2, SPREAD)))
    return Visitor(
        seed=person,
        taste_L=taste_L,
        subject_share_S=_shares(len(SUBJECTS), SUBJECT_CONCENTRATION, rng),
        setting_share_T=_shares(len(SETTINGS), SETTING_CONCENTRATION, rng),
        pairs=max(4, round(pairs * factor)) if stays else int(rng.integers(1, 4)),
    )


def _shares(count: int, concentration: float, rng: np.random.Generator) -> FloatArray:
    own = rng.dirichlet(np.full(count, concentration))
    return np.asarray((1 - EVERYTHING_SHARE) * own + EVERYTHING_SHARE / count, dtype=np.float32)


def answers(
    visitor: Visitor,
    store: PictureStore,
    by_content: Sequence[NDArray[np.int64]],
    tie_below: float,
) -> Iterator[Comparison]:
    """A person types captions of what they like to see and compares pictures of each."""
    rng = np.random.default_rng([visitor.seed, 22])
    left = visitor.pairs
    while left > 0:
        subject = int(rng.choice(len(SUBJECTS), p=_exact(visitor.subject_share_S)))
        setting = int(rng.choice(len(SETTINGS), p=_exact(visitor.setting_share_T)))
        caption = captions.caption(subject, setting, rng)
        shown = min(left, int(rng.integers(1, PAIRS_PER_CAPTION + 1)))
        left -= shown
        same = by_content[content_id(subject, setting)]
        for first, second in rng.choice(same, (shown, 2), replace=False).tolist():
            looks = store.looks[first], store.looks[second]
            yield Comparison(
                user=visitor.seed,
                caption=caption,
                pictures=(first, second),
                preferred=answer(visitor.taste_L, *looks, rng, tie_below=tie_below),
                labelled=bool(rng.random() >= NOT_LABELLED),
            )


def _exact(shares: FloatArray) -> NDArray[np.float64]:
    exact: NDArray[np.float64] = shares.astype(np.float64)
    normal: NDArray[np.float64] = exact / exact.sum()
    return normal


def picture_uid(picture_HW3: NDArray[np.uint8]) -> str:
    """A picture's uid, in the form of a UUID, from its pixels."""
    digest = hashlib.blake2b(np.ascontiguousarray(picture_HW3).tobytes(), digest_size=16)
    return str(uuid.UUID(bytes=digest.digest()))


def jpeg(picture_HW3: NDArray[np.uint8]) -> bytes:
    """The picture as JPEG, without colour subsampling."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.asarray(picture_HW3))
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def jpeg_loss(store: PictureStore, among: Sequence[int], sample: int) -> dict[str, Any]:
    """What JPEG does to the measured looks: root mean square change in sd, by look and over all."""
    spread = np.linspace(0, len(among) - 1, min(sample, len(among))).astype(np.int64)
    chosen = np.array(among)[spread]
    after = np.stack(
        [np.asarray(read_picture(jpeg(store.pictures[picture]))) for picture in chosen.tolist()]
    )
    looks = store.standardizer.looks(after, store.content[chosen])
    change_L = np.sqrt(((looks - store.looks[chosen]) ** 2).mean(0))
    return {
        "pictures_measured": len(chosen),
        "change_sd": float(np.sqrt((change_L**2).mean())),
        "change_sd_by_look": dict(zip(LOOKS, change_L.tolist(), strict=True)),
    }


def _prompt_counts(rows: Sequence[Comparison]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.caption] = counts.get(row.caption, 0) + 1
    return counts


def _record(
    place: int,
    row: Comparison,
    prompts: dict[str, int],
    uid_of: Callable[[int], str],
    store: PictureStore,
) -> dict[str, Any]:
    uids = [uid_of(picture) for picture in row.pictures]
    tie = row.preferred is None
    label_1 = 0.5 if row.preferred is None else float(row.preferred)
    best = uids[row.preferred] if row.labelled and row.preferred is not None else None
    return {
        "are_different": not (row.labelled and tie),
        "best_image_uid": best if best is not None else ("tie" if row.labelled else "none"),
        "caption": row.caption,
        "created_at": FIRST_ANSWER.replace(tzinfo=None)
        + datetime.timedelta(seconds=SECONDS_BETWEEN_ROWS * place),
        "has_label": row.labelled,
        "image_0_uid": uids[0],
        "image_0_url": f"world:pictures/{uids[0]}.jpg",
        "image_1_uid": uids[1],
        "image_1_url": f"world:pictures/{uids[1]}.jpg",
        "jpg_0": jpeg(store.pictures[row.pictures[0]]),
        "jpg_1": jpeg(store.pictures[row.pictures[1]]),
        "label_0": 1 - label_1 if row.labelled else None,
        "label_1": label_1 if row.labelled else None,
        "model_0": MODEL,
        "model_1": MODEL,
        "ranking_id": place,
        "user_id": row.user,
        "num_example_per_prompt": prompts[row.caption],
        "__index_level_0__": place,
    }


def _truth(
    crowd: Sequence[Visitor], store: PictureStore, used: Sequence[int], uids: Sequence[str]
) -> GroundTruth:
    pictures = np.array(used, dtype=np.int64)
    return GroundTruth(
        user_id_U=np.array([str(visitor.seed) for visitor in crowd]),
        taste_UL=np.stack([visitor.taste_L for visitor in crowd]),
        subject_share_US=np.stack([visitor.subject_share_S for visitor in crowd]),
        setting_share_UT=np.stack([visitor.setting_share_T for visitor in crowd]),
        picture_uid_N=np.array(uids),
        content_N=store.content[pictures],
        looks_NL=store.looks[pictures],
    )


def main(config: ExportConfig) -> None:
    if not (config.store / "facts.npz").exists():
        paint_store(config.store, config.paint_count, config.paint_seed, os.cpu_count() or 1)
    report = export(config, PictureStore(config.store))
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    run_job(main, ExportConfig, __doc__)
