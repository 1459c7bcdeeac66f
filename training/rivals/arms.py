"""What each arm makes of four answers: in training, of the data's sets; later, of new people's.

- "vlm": the reading, as served; "nobody": everybody's is the same (Diffusion-DPO);
- "pictures", "base_users", "taste_space": readers/, of picture features;
- "people": a vector learned for each known person; a new one's is fitted (fitted_people.py);
- "best_estimate": the bound, which reads true looks of the pictures;
- "words": no embedding; the reading's words go into the prompts (likes_as_words.py).

Legend: U people, E sets of 4 answers, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ppd_model.files.artifact import load_artifact, sha256_of
from ppd_model.types import EncodedUser
from ppd_model.user_encoder import UserEncoder
from training.data.dataset import PreferencePairs, load_pairs, pad_features
from training.dpo.dpo_config import DpoConfig
from training.jobs.files import replacing
from training.precompute.precompute_config import prior_samples
from training.precompute.source_plan import config_of
from training.pretrain.words.adopt import check_space
from training.quiz.quizzes import Person
from training.rivals.answers import Answers, FloatArray, answers_of_data, answers_of_people
from training.rivals.fitted_people import fit_people
from training.rivals.readers.base_users import BaseUsers
from training.rivals.readers.picture_difference import PictureDifference
from training.rivals.readers.taste_estimate import TasteEstimate
from training.rivals.rivals_config import RivalsConfig
from training.synthetic_users.arms import everybody
from training.train_dpo import ADAPTER, make_model, read_pairs
from training.world import tastes


class PictureReader(Protocol):
    """Arrays that are fitted on known people's answers, to read anybody's four."""

    def __init__(self, **arrays: FloatArray) -> None: ...

    @classmethod
    def fit(cls, known: Answers) -> PictureReader:
        """Of answers that training may look at."""

    def read(self, answers: Answers) -> FloatArray:
        """One embedding for each set."""


READERS: Mapping[str, type[PictureReader]] = {
    "pictures": PictureDifference,
    "base_users": BaseUsers,
    "taste_space": TasteEstimate,
}


@dataclass(frozen=True)
class Arms:
    """The arms of a configuration, their readers fitted."""

    config: RivalsConfig
    encoder: UserEncoder
    known: Answers
    readers: Mapping[str, PictureReader]

    @classmethod
    def fit(cls, config: RivalsConfig, encoder: UserEncoder) -> Arms:
        """With the data's answers in picture features, and what is fitted on them, made once."""
        path = answers_file(config)
        (config.out / "readers").mkdir(parents=True, exist_ok=True)
        if not path.exists():
            answers_of_data(config.data, encoder).save(path)
        known = Answers.load(path)
        wanted: set[str] = {arm.reads for arm in config.arms.values()}
        readers = {}
        for name in [name for name in READERS if name in wanted]:
            kept = config.out / "readers" / f"{name}.safetensors"
            if not kept.exists():
                fitted = READERS[name].fit(known.of_known())
                tensors = {key: np.ascontiguousarray(of) for key, of in vars(fitted).items()}
                with replacing(kept) as unfinished:
                    save_file(tensors, unfinished)
            readers[name] = READERS[name](**load_file(kept))
        return cls(config, encoder, known, readers)

    def trainings(self) -> list[tuple[DpoConfig, PreferencePairs]]:
        """Every arm that is trained here and is not yet, with the pairs as it meets them."""
        found = []
        for name, arm in self.config.arms.items():
            if arm.objective is None or self.adapter(name).exists():
                continue
            training = self.config.of_training(name)
            if arm.reads in self.readers:
                pairs = self._embedded(training, arm.reads)
            else:
                pairs = read_pairs(training)
            found.append((training, pairs))
        return found

    @property
    def fitted_on(self) -> dict[str, str]:
        """What readers were fitted on."""
        return {"answers": sha256_of(answers_file(self.config))}

    def adapter(self, name: str) -> Path:
        """Of an arm that has one."""
        given = self.config.arms[name].adapter
        return given or self.config.out / "arms" / name / ADAPTER

    def check_adapters(self) -> None:
        """Raises ValueError for an adapter that reads other embeddings than the VLM makes now."""
        for name, arm in self.config.arms.items():
            if arm.reads == "vlm":
                _, spec = load_artifact(self.adapter(name), kind="adapter")
                trained_on = spec.extra["encoder_id"]
                if trained_on != self.encoder.encoder_version:
                    check_space(self.config.weights, trained_on, name)

    def embeddings(
        self, name: str, people: Sequence[Person], read: Sequence[EncodedUser], width: int
    ) -> list[FloatArray]:
        """What the arm makes of these people's four answers; `read` is what the VLM makes of them.

        Raises ValueError for an arm without embeddings.
        """
        reads = self.config.arms[name].reads
        if reads == "vlm":
            return [user.user_emb_D for user in read]
        if reads == "nobody":
            return [everybody(width)] * len(people)
        if reads == "people":
            return list(self._fitted(name, people))
        if reads == "best_estimate":
            prior = prior_samples(config_of(self.config.data))
            found = np.stack(
                [tastes.posterior_mean(p.delta_4L, p.preferred_4, prior) for p in people]
            )
        elif reads in self.readers:
            found = self.readers[reads].read(answers_of_people(people, self.encoder))
        else:
            raise ValueError(f"{name} reads {reads!r}, which is no embedding")
        return list(pad_features(torch.from_numpy(found).float(), width).numpy())

    def _embedded(self, training: DpoConfig, reads: str) -> PreferencePairs:
        """The pairs with that reader's embeddings of their people's sets."""
        width = training.trained_preset.user_emb_dim
        pairs = load_pairs(training.data_dir, training.user, width)
        own = self.known.of(np.isin(self.known.person_E, pairs.place_U.numpy()))
        read_ED = torch.from_numpy(np.asarray(self.readers[reads].read(own))).float()
        assert len(read_ED) == len(pairs.user_emb_ED), "the answers are of other data"
        return replace(
            pairs,
            user_emb_ED=pad_features(read_ED, width),
            provenance=pairs.provenance | {"encoder_id": reads},
        )

    def _fitted(self, name: str, people: Sequence[Person]) -> FloatArray:
        training = self.config.of_training(name)
        model, _ = make_model(training, read_pairs(training), torch.device("cpu"))
        return fit_people(people, training, model, self.config.weights)


def answers_file(config: RivalsConfig) -> Path:
    return config.out / "answers.safetensors"
