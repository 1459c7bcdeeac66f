"""What docs/reproduce.md has downloaded, made up: the same files, small.

Pick-a-Pic lies as on the hub: shards of several splits under data/, one of them with pictures as
`{bytes, path}`. Its rows have what the real ones have, and what a reader must survive.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from ppd_model import prompts
from ppd_model.presets import VLM_7B, get_preset
from tests.fake_pickapic import Row, row
from tests.tiny_published import edit_weights, write_published
from tests.tiny_rewards import write_rewards
from training.data.pickapic import PICTURES, SCHEMA

PEOPLE, PAIRS = 16, 30
OF_FEW = 4
"""People with too few pairs to be read."""
SHARDS = 3
SUBJECTS = ("boat", "red house", "fox", "tower", "bread", "old car", "lake", "robot")
STYLES = ("in the rain", "at night", "made of glass", "in oil", "from above", "in the snow")
BIG_PX = 8192
COUNTED = {
    "rows": PEOPLE * PAIRS + 2 * OF_FEW + 7,
    "incomplete": 2,
    "unlabelled": 2,
    "ties": 2,
    "contradictions": 0,
    "duplicates": 1,
    "of_small_users": 2 * OF_FEW,
    "small_users": OF_FEW,
    "pairs": PEOPLE * PAIRS,
}
"""What a reader of train must find (training.data.preferences, ReadCounts)."""


def write_downloads(weights: Path, datasets: Path, preset: str) -> None:
    """Everything under the two folders."""
    write_published(weights, get_preset(preset))
    teach_words(weights / VLM_7B.split("/")[-1])
    write_rewards(weights / "rewards")
    write_pickapic(datasets / "pickapic_v2" / "data")
    lines = [f"a {subject} {style}\tArtifacts\tBasic\t" for subject in SUBJECTS for style in STYLES]
    text = "\n".join(["Prompt\tCategory\tChallenge\tNote", *lines[:6], ""])
    (datasets / "PartiPrompts.tsv").write_text(text)


def teach_words(vlm: Path) -> None:
    """Random weights would say any bytes, to the last token that they may: these say words, and
    end."""
    tokenizer = AutoTokenizer.from_pretrained(vlm)
    said = tokenizer("Prefers bright pictures. Avoids dark pictures.")["input_ids"]
    said.append(tokenizer.convert_tokens_to_ids(prompts.TURN_END))
    (path,) = vlm.glob("model*.safetensors")

    def silenced(tensors: dict[str, Tensor]) -> None:
        (key,) = (key for key in tensors if key.endswith("lm_head.weight"))
        known = torch.zeros(len(tensors[key]), 1)
        known[said] = 4
        tensors[key] *= known

    edit_weights(path, silenced)


def write_pickapic(folder: Path) -> None:
    """train in shards of row groups, and the other splits that lie beside it."""
    folder.mkdir(parents=True)
    rows = train_rows()
    rng = np.random.default_rng(1)
    rows = [rows[place] for place in rng.permutation(len(rows))]
    for shard in range(SHARDS):
        name = f"train-{shard:05d}-of-{SHARDS:05d}-0123456789abcdef.parquet"
        write(folder / name, rows[shard::SHARDS], as_structs=shard == 1)
    others = {"validation": 40, "validation_unique": 16, "test": 20}
    for split, pairs in others.items():
        first = 10_000 * (1 + list(others).index(split))
        own = [
            pair(9000 + n // 8, first + n, f"{split} caption {n} of {SUBJECTS[n % 8]}", rng)
            for n in range(pairs)
        ]
        write(folder / f"{split}-00000-of-00001-0123456789abcdef.parquet", own)


def train_rows() -> list[Row]:
    """People with their own captions, several pairs of each, and every kind of row that is left
    out."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(PEOPLE):
        for n in range(PAIRS):
            words = f"{SUBJECTS[(user + n // 3) % 8]} {STYLES[(user + n // 3) % 6]}"
            caption = f"person {user} topic{user}x{n // 3} {words} word{n // 3}y{user}"
            rows.append(pair(user, user * 1000 + n, caption, rng))
    for user in range(PEOPLE, PEOPLE + OF_FEW):
        rows += [pair(user, user * 1000 + n, f"{user} seldom {n}", rng) for n in range(2)]
    special = [dict(each) for each in rows[:40:4]]
    rows += [
        special[0],  # the same answer again
        special[1] | {"are_different": False},
        special[2] | {"label_0": 0.5, "label_1": 0.5},
        special[3] | {"has_label": False, "best_image_uid": ""},
        special[4] | {"caption": None},
        special[5] | {"user_id": None},
        special[6] | {"has_label": False, "label_0": None, "label_1": None, "jpg_0": None},
    ]
    for place, damage in ((45, cut), (46, cmyk), (47, big)):
        rows[place] = rows[place] | {"jpg_0": damage(rows[place]["jpg_0"])}
    return rows


def pair(user: int, number: int, caption: str, rng: np.random.Generator) -> Row:
    """A decided pair: who has an even number likes warm pictures, the others cold ones."""
    warm, cold = picture(rng, (210, 140, 60)), picture(rng, (60, 120, 210))
    likes_first = bool(rng.integers(2))
    shown = (warm, cold) if likes_first == (user % 2 == 0) else (cold, warm)
    return row(
        user,
        caption,
        f"{number}-a",
        f"{number}-b",
        0 if likes_first else 1,
        jpg_0=shown[0],
        jpg_1=shown[1],
        ranking_id=number,
    )


def picture(rng: np.random.Generator, colour: tuple[int, int, int]) -> bytes:
    """A photograph's worth of noise around a colour, of any shape."""
    height, width = rng.integers(64, 160, 2)
    noise_HW3 = rng.normal(0, 25, (height, width, 3)) + np.array(colour)
    return saved(Image.fromarray(noise_HW3.clip(0, 255).astype(np.uint8)))


def saved(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def cut(jpeg: bytes) -> bytes:
    """A file whose end never came."""
    return jpeg[: len(jpeg) // 2]


def cmyk(jpeg: bytes) -> bytes:
    """The picture in a printer's colours."""
    return saved(Image.open(io.BytesIO(jpeg)).convert("CMYK"))


def big(jpeg: bytes) -> bytes:
    """The picture, 8,192 pixels wide and high."""
    return saved(Image.open(io.BytesIO(jpeg)).resize((BIG_PX, BIG_PX), Image.Resampling.NEAREST))


def write(path: Path, rows: list[Row], *, as_structs: bool = False) -> None:
    """One file of several row groups; pictures alone, or as the library `datasets` has them."""
    schema = SCHEMA
    if as_structs:
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        for name in PICTURES:
            schema = schema.set(schema.get_field_index(name), pa.field(name, struct))
        rows = [_as_structs(each) for each in rows]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=50)


def _as_structs(given: dict[str, Any]) -> dict[str, Any]:
    kept = {name: given[name] for name in PICTURES}
    return given | {
        name: None if jpeg is None else {"bytes": jpeg, "path": None} for name, jpeg in kept.items()
    }
