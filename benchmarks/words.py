"""Are words obeyed, and do texts read well? Through encoder and pipeline as they are served.

    python -m benchmarks.words --people 8 --prompts 4 --out words.json
    python -m benchmarks.words --texts 1000 --people 0 --probe_data runs/mini/precompute

Pictures of a statement and of its opposite, same person, prompt and seed, are compared by plain
statistics (benchmarks/picture_statistics.py). Simulated people of the test seeds have answered the
quiz that is served; some texts are read with their choices, some alone. ``--texts`` reads so many
people without a text and looks at what is written. ``--probe_data`` (of training.precompute) gives
the linear reading of tastes by which "the rest" is compared: the looks that a statement about one
look does not speak of.

Legend: N people, L looks, D embedding.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.picture_statistics import STATISTICS
from ppd_model.pipeline import MINI_WEIGHTS_DIR, Pipeline
from ppd_model.types import Embedding, EncodedUser, ImageRequest
from ppd_model.user_encoder import UserEncoder
from training.data.dataset import load_pairs
from training.jobs.configuration import git_commit
from training.pretrain.vlm import profile_text
from training.pretrain.vlm.held_out_scores import apply_ridge, fit_ridge
from training.quiz.quizzes import Person, make_quiz, quiz_people
from training.world.captions import caption
from training.world.looks import Standardizer
from training.world.people import person_seeds
from training.world.scene import CONTENTS, LOOKS, SETTINGS

BATCH = 16
FIRST_PERSON = 2000
CLEAR_SHARE = 0.3
"""A look's part of a taste of length 1 from which on its direction counts as clear."""


@dataclass(frozen=True)
class Contrast:
    """A text, its opposite, and the looks that the first shows more of than the second."""

    more: str
    less: str
    looks: tuple[str, ...]


STATED = (
    Contrast("Prefers sunny scenes.", "Prefers shady scenes.", ("brightness",)),
    Contrast("Prefers bold contrast.", "Avoids strong contrast.", ("contrast",)),
    Contrast("Prefers vivid colour.", "Avoids lively colour.", ("saturation",)),
    Contrast("Prefers warm golden tones.", "Prefers cool blue tones.", ("warmth",)),
    Contrast("Prefers patterned backgrounds.", "Avoids decorative patterns.", ("detail",)),
    Contrast("Prefers large subjects up close.", "Prefers small distant subjects.", ("size",)),
    Contrast("Prefers heavy outlines.", "Avoids thick outlines.", ("outline",)),
    Contrast("Prefers dark corners.", "Avoids a dark vignette.", ("vignette",)),
)
OWN_WORDS = (
    Contrast(
        "I love warm, bright, cheerful pictures",
        "I love cold, dark, gloomy pictures",
        ("brightness", "warmth"),
    ),
    Contrast("a cosy evening mood with golden light", "icy, wintry blue", ("warmth",)),
    Contrast("not too dark please", "make it darker", ("brightness",)),
    Contrast("Colourful and vibrant!", "pastel, washed out colors", ("saturation",)),
    Contrast("very punchy and dramatic", "soft, misty and gentle", ("contrast",)),
    Contrast("lots of detail and busy patterns", "simple, clean, uncluttered", ("detail",)),
    Contrast("close-ups of huge things", "tiny and far away", ("size",)),
    Contrast("outlined, with crisp edges", "no outlines", ("outline",)),
    Contrast("framed by dark corners", "without dark corners or a vignette", ("vignette",)),
    Contrast("I don't like it cold", "I don't like warm colours", ("warmth",)),
    Contrast("I hate dull colours", "I hate bright colours", ("saturation",)),
    Contrast("a bit brighter", "slightly darker", ("brightness",)),
)


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    encoder = UserEncoder.load("mini", args.weights_dir)
    standardizer = Standardizer.load(args.weights_dir / "standardizer.json")
    quiz = make_quiz("served", standardizer.looks, tie_below=0.1)
    report: dict[str, Any] = {"commit": git_commit(), "encoder": encoder.encoder_version}
    probe = None if args.probe_data is None else taste_probe(args.probe_data)
    if args.people:
        people = quiz_people(quiz, person_seeds("test", args.people, FIRST_PERSON))
        pipeline = Pipeline.load("mini", args.weights_dir)
        for name, contrasts in (("stated", STATED), ("own_words", OWN_WORDS)):
            report[name] = obeyed(contrasts, people, encoder, pipeline, args.prompts)
            report[f"{name}_alone"] = obeyed(contrasts, [], encoder, pipeline, args.prompts)
        report["rest"] = rest_cosine(encoder, people, probe)
    if args.texts:
        people = quiz_people(quiz, person_seeds("test", args.texts, FIRST_PERSON + 1000))
        report["texts"] = texts_report(people, read(encoder, people), probe)
    text = json.dumps(report, indent=1)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n")


def obeyed(
    contrasts: Sequence[Contrast],
    people: Sequence[Person],
    encoder: UserEncoder,
    pipeline: Pipeline,
    prompts: int,
) -> dict[str, Any]:
    """Share of pictures in which the statement shows more of its looks than its opposite does.

    Without people the texts are read alone, each for twice the prompts.
    """
    rng = np.random.default_rng(15)
    wanted: list[ImageRequest] = []
    of: list[tuple[int, str]] = []
    for number, contrast in enumerate(contrasts):
        more = embeddings(encoder, people, contrast.more)
        less = embeddings(encoder, people, contrast.less)
        for more_D, less_D in zip(more, less, strict=True):
            for _ in range(prompts if people else 2 * prompts):
                content = int(rng.integers(CONTENTS))
                prompt = caption(content // len(SETTINGS), content % len(SETTINGS), rng)
                seed = int(rng.integers(2**31))
                wanted += [ImageRequest(prompt, seed, emb_D) for emb_D in (more_D, less_D)]
                of.append((number, prompt))
    made = [
        picture.image_HWC
        for start in range(0, len(wanted), BATCH)
        for picture in pipeline.generate(wanted[start : start + BATCH])
    ]
    right: dict[int, list[bool]] = {}
    for (number, _), more_HW3, less_HW3 in zip(of, made[::2], made[1::2], strict=True):
        for look in contrasts[number].looks:
            measure = STATISTICS[look]
            right.setdefault(number, []).append(measure(more_HW3) > measure(less_HW3))
    everything = [one for ones in right.values() for one in ones]
    return {
        "right": round(float(np.mean(everything)), 3),
        "comparisons": len(everything),
        "each": {contrasts[n].more: round(float(np.mean(ones)), 2) for n, ones in right.items()},
    }


def embeddings(encoder: UserEncoder, people: Sequence[Person], text: str) -> list[Embedding]:
    if not people:
        return [encoder.encode([], profile=text).user_emb_D]
    many = [person.choices for person in people]
    return [user.user_emb_D for user in encoder.encode_batch(many, profiles=[text] * len(many))]


def read(encoder: UserEncoder, people: Sequence[Person]) -> list[EncodedUser]:
    many = [person.choices for person in people]
    return [
        user
        for start in range(0, len(many), BATCH)
        for user in encoder.encode_batch(many[start : start + BATCH])
    ]


def taste_probe(folder: Path) -> NDArray[np.float64]:
    """The ridge that reads a taste from an embedding, fitted on the people of a data set."""
    dim = 128
    people_ED = load_pairs(folder, "vlm", dim).user_emb_ED.numpy()
    taste_EL = load_pairs(folder, "taste", dim).user_emb_ED[:, : len(LOOKS)].numpy()
    return fit_ridge(people_ED, taste_EL)


def rest_cosine(
    encoder: UserEncoder, people: Sequence[Person], probe: NDArray[np.float64] | None
) -> dict[str, Any] | None:
    """How alike the looks that a statement does not speak of are read before and after it."""
    if probe is None:
        return None
    before_NL = apply_ridge(np.stack([u.user_emb_D for u in read(encoder, people)]), probe)
    cosines: list[float] = []
    for contrast in STATED:
        others = [i for i, look in enumerate(LOOKS) if look not in contrast.looks]
        for text in (contrast.more, contrast.less):
            after_NL = apply_ridge(np.stack(embeddings(encoder, people, text)), probe)
            cosines += _cosines(before_NL[:, others], after_NL[:, others]).tolist()
    return {"mean_cosine": round(float(np.mean(cosines)), 3), "readings": len(cosines)}


def texts_report(
    people: Sequence[Person], users: Sequence[EncodedUser], probe: NDArray[np.float64] | None
) -> dict[str, Any]:
    """What is wrong with the profiles that were written."""
    repeated = contradicting = inconsistent = 0
    clear: list[bool] = []
    named: list[int] = []
    for person, user in zip(people, users, strict=True):
        said = [
            (look, pole)
            for look, poles in enumerate(profile_text.grammar().looks)
            for pole, (phrase, _) in enumerate(poles)
            for _ in re.findall(re.escape(phrase), user.profile)
        ]
        repeated += len(said) != len(set(said))
        contradicting += len({look for look, _ in said}) != len(set(said))
        inconsistent += _phrases(user) != len(said)
        named.append(len(set(said)))
        for look, pole in set(said):
            if abs(person.taste_L[look]) >= CLEAR_SHARE:
                clear.append((person.taste_L[look] > 0) == bool(pole))
    report = {
        "profiles": len(users),
        "a_phrase_twice": repeated,
        "against_itself": contradicting,
        "likes_and_dislikes_unlike_the_text": inconsistent,
        "looks_named": round(float(np.mean(named)), 2),
        "right_where_clear": round(float(np.mean(clear)), 3),
        "clear": len(clear),
    }
    if probe is not None:
        read_NL = apply_ridge(np.stack([u.user_emb_D for u in users]), probe)
        taste_NL = np.stack([p.taste_L for p in people])
        report["probe_cosine"] = round(float(_cosines(read_NL, taste_NL).mean()), 4)
    return report


def _phrases(user: EncodedUser) -> int:
    """How many likes and dislikes stand in the text on their own side of it."""
    liked, _, avoided = user.profile.partition("Avoids")
    if user.profile.startswith("Avoids"):
        liked, avoided = "", user.profile
    return sum(p in liked for p in user.likes) + sum(p in avoided for p in user.dislikes)


def _cosines(a_NL: NDArray[np.floating], b_NL: NDArray[np.floating]) -> NDArray[np.floating]:
    norms = np.linalg.norm(a_NL, axis=1) * np.linalg.norm(b_NL, axis=1) + 1e-9
    cosines_N: NDArray[np.floating] = (a_NL * b_NL).sum(axis=1) / norms
    return cosines_N


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights_dir", type=Path, default=MINI_WEIGHTS_DIR)
    parser.add_argument("--people", type=int, default=8, help="Whose choices stand beside a text.")
    parser.add_argument("--prompts", type=int, default=1, help="Pictures of each person and text.")
    parser.add_argument("--texts", type=int, default=0, help="People whose profiles are judged.")
    parser.add_argument("--probe_data", type=Path, help="A folder of training.precompute.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    return parser


if __name__ == "__main__":
    main()
