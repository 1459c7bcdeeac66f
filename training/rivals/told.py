"""How much of a person's true taste four answers tell, through each reader, before anybody paints.

A linear probe from what a reader makes of known people's sets of answers to their tastes; the
cosine of what it says of unseen people's sets with their tastes. The best estimate, which reads the
pictures' true looks and knows the population, needs no probe.

Legend: E sets of 4 answers, D embedding, L looks.
"""

from __future__ import annotations

import numpy as np

from training.data.dataset import load_pairs
from training.data.splits import SPLITS
from training.reports.statistics import clustered_mean, ridge_probe
from training.rivals.answers import FloatArray
from training.rivals.arms import Arms
from training.world.scene import LOOKS


def told(arms: Arms) -> dict[str, dict[str, float | int]]:
    """The mean cosine over unseen people's sets, its interval over people, for each reader.

    "vlm over NAME" is by how much the VLM's is higher on the same sets.

    Raises ValueError for a folder without the ground truth.
    """
    looks = len(LOOKS)
    taste = load_pairs(arms.config.data, "taste", looks, SPLITS)
    taste_EL = taste.user_emb_ED.double().numpy()
    answers = arms.known.of(np.isin(arms.known.person_E, taste.place_U.numpy()))
    read = {name: reader.read(answers) for name, reader in arms.readers.items()}
    if any(arm.reads == "vlm" for arm in arms.config.arms.values()):
        width = arms.encoder.user_emb_dim
        read["vlm"] = (
            load_pairs(arms.config.data, "vlm", width, SPLITS).user_emb_ED.double().numpy()
        )
    known_E = answers.known_E
    said = {
        name: ridge_probe(of_ED[known_E], taste_EL[known_E], of_ED[~known_E])
        for name, of_ED in read.items()
    }
    estimate = load_pairs(arms.config.data, "posterior", looks, SPLITS)
    said["best_estimate"] = estimate.user_emb_ED.double().numpy()[~known_E]
    person_E = answers.person_E[~known_E]
    cosine_E = {name: cosines(said_EL, taste_EL[~known_E]) for name, said_EL in said.items()}
    if "vlm" in cosine_E:
        others = [name for name in cosine_E if name != "vlm"]
        cosine_E |= {f"vlm over {name}": cosine_E["vlm"] - cosine_E[name] for name in others}
    return {
        name: clustered_mean(of_E, person_E, np.random.default_rng(73)).to_dict()
        for name, of_E in cosine_E.items()
    }


def cosines(said_EL: FloatArray, taste_EL: FloatArray) -> FloatArray:
    """Of corresponding rows."""
    norms_E = np.linalg.norm(said_EL, axis=1) * np.linalg.norm(taste_EL, axis=1)
    cosine_E: FloatArray = (said_EL * taste_EL).sum(1) / np.maximum(norms_E, 1e-12)
    return cosine_E
