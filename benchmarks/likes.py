"""What pictures that are liked without a pair tell of a taste, beside answers to real pairs.

    python -m benchmarks.likes [--people 48] [--fit 192] [--of 8] [--out FILE]

Simulated people of the painted world. Real: four random pairs each, answered. Likes: of four
contents the picture that they like best among ``--of``, set against a picture of the quiz's pool as
the service does (`service.core.likes`), its caption found by words or by what the VLM sees. Both
are read by the shipped VLM, and a ridge that was fitted on ``--fit`` other people's real pairs
reads the taste from the embedding. Prints cosines with the true taste, with 95 % intervals over
people, and how often the caption that was found is that of the picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from benchmarks.rounds import report_of, show
from ppd_model.pictures.reading import KEPT, read_picture
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.types import LabelledPair
from ppd_model.user_encoder import UserEncoder
from service.core.likes import Against, by_caption, by_picture, picture_against, pictures_of
from service.core.pool import Pool, load_pool
from training.pretrain.vlm.held_out_scores import apply_ridge, fit_ridge
from training.quiz.quizzes import POOL_DIR, make_quiz, quiz_people, random_scene
from training.reports.statistics import clustered_mean
from training.world import captions, tastes
from training.world.captions import canonical
from training.world.looks import Standardizer
from training.world.painter import paint
from training.world.people import person_seeds, taste_of
from training.world.scene import CONTENTS, SETTINGS

FloatArray = NDArray[np.float32]
Sets = list[list[LabelledPair]]
LIKED = 4
BATCH = 16


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--people", type=int, default=48)
    parser.add_argument("--fit", type=int, default=192)
    parser.add_argument("--of", type=int, default=8, help="Pictures of which one is liked.")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    encoder = UserEncoder.load("mini")
    looks_of = Standardizer.load(MINI_WEIGHTS_DIR / "standardizer.json").looks
    quiz, pool = make_quiz("random", looks_of, tie_below=0.1), load_pool(POOL_DIR)
    fitted = quiz_people(quiz, person_seeds("train", args.fit))
    probe = fit_ridge(
        read(encoder, [one.choices for one in fitted]), np.stack([one.taste_L for one in fitted])
    )
    seeds = person_seeds("validate", args.people, 5000)
    people = quiz_people(quiz, seeds)
    taste_NL = np.stack([one.taste_L for one in people])
    liked = [likes_of(seed, args.of, looks_of) for seed in tqdm(seeds, desc="likes")]
    pool_NF = features(encoder, [opened(pool, image.file) for _, image in pictures_of(pool)])
    by_words, by_looks, right = sets_of(encoder, pool, pool_NF, liked)
    sets = {
        "four real pairs": [one.choices for one in people],
        "four likes, captions given": by_words,
        "four likes, captions found": by_looks,
    }
    found = {}
    for name, some in sets.items():
        read_NL = apply_ridge(read(encoder, some), probe)
        cosine_N, everybody = cosines(read_NL, taste_NL), np.arange(len(people))
        rng = np.random.default_rng(0)
        found[name] = vars(clustered_mean(cosine_N.astype(np.float64), everybody, rng))
    report: dict[str, Any] = {"probe cosine": found, "captions found rightly": right}
    show(report_of(vars(args) | {"out": None}, report), args.out)


def likes_of(seed: int, of: int, looks_of: Callable[..., FloatArray]) -> list[tuple[str, str, Any]]:
    """What one person likes: a caption, the content's plain one, and the picture, of four."""
    rng, taste_L = np.random.default_rng([seed, 9]), taste_of(tastes.Population(), seed)
    liked = []
    for content in rng.choice(CONTENTS, LIKED, replace=False).tolist():
        subject, setting = divmod(content, len(SETTINGS))
        images = np.stack([paint(random_scene(subject, setting, rng)) for _ in range(of)])
        utility = [tastes.utility(taste_L, one) for one in looks_of(images, np.full(of, content))]
        picture = Image.fromarray(images[int(np.argmax(utility))])
        said = captions.caption(subject, setting, rng)
        liked.append((said, canonical(subject, setting), picture))
    return liked


def sets_of(
    encoder: UserEncoder,
    pool: Pool,
    pool_NF: FloatArray,
    liked: Sequence[Sequence[tuple[str, str, Any]]],
) -> tuple[Sets, Sets, dict[str, float]]:
    """The likes as labelled pairs, by words and by what is seen, and how often those are right."""
    by_words: Sets = []
    by_looks: Sets = []
    right: dict[str, list[bool]] = {"by words": [], "by picture": []}
    for person, some in enumerate(tqdm(liked, desc="matching")):
        seen_4F = features(encoder, [picture for _, _, picture in some])
        for sets in (by_words, by_looks):
            sets.append([])
        for place, (said, plain, picture) in enumerate(some):
            name = f"{person} {place}"
            pictured = by_picture(pool, pool_NF, seen_4F[place], name)
            worded = by_caption(pool, said, name) or pictured
            ways = (("by words", worded, by_words), ("by picture", pictured, by_looks))
            for way, against, sets in ways:
                pair, caption = labelled(pool, against, picture)
                sets[-1].append(pair)
                right[way].append(caption == plain)
    return by_words, by_looks, {way: float(np.mean(hits)) for way, hits in right.items()}


def labelled(pool: Pool, against: Against, picture: Any) -> tuple[LabelledPair, str]:
    found = picture_against(pool, against.row)
    assert found is not None
    caption, other = found
    return LabelledPair(caption, picture, opened(pool, other.file), 0), caption


def opened(pool: Pool, file: str) -> Any:
    return read_picture((pool.images_dir / file).read_bytes(), KEPT)


def features(encoder: UserEncoder, pictures: Sequence[Any]) -> FloatArray:
    return encoder.picture_features(pictures)


def read(encoder: UserEncoder, sets: Sequence[Sequence[LabelledPair]]) -> FloatArray:
    """The embedding of each set, N x D."""
    starts = tqdm(range(0, len(sets), BATCH), desc="reading")
    users = [user for at in starts for user in encoder.encode_batch(sets[at : at + BATCH])]
    return np.stack([user.user_emb_D for user in users])


def cosines(one_NL: FloatArray, other_NL: FloatArray) -> FloatArray:
    lengths_N = np.linalg.norm(one_NL, axis=1) * np.linalg.norm(other_NL, axis=1)
    found_N: FloatArray = (one_NL * other_NL).sum(1) / lengths_N
    return found_N


if __name__ == "__main__":
    main()
