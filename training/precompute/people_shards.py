"""Who answered, read from what: embeddings by the VLM, and with the ground truth the upper bounds.

Legend: U people, E support sets, P query pairs, L looks, D embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppd_model.pictures.reading import PictureError
from ppd_model.types import LabelledPair
from ppd_model.user_encoder import EncodedUser, EncodingError, UserEncoder
from training.data.preferences import Preferences
from training.data.shards import ShardFolder, verified
from training.data.splits import PersonPairs
from training.data.vlm_readings import UnreadableSetError, read_each
from training.precompute.plan import Plan
from training.precompute.precompute_config import FloatArray, PrecomputeConfig, prior_samples
from training.precompute.processes import Worker, open_folder
from training.precompute.query_shards import beside
from training.precompute.reuse import Earlier
from training.precompute.support_pictures import SupportPictures, write_pictures
from training.precompute.unreadable import (
    as_line,
    lost_pictures,
    note,
    refuse_too_many,
    without,
)
from training.world import tastes
from training.world.truth import GroundTruth

SUPPORT_FOLDER = "support_pictures"


def gather_support(
    config: PrecomputeConfig, plan: Plan, made_with: dict[str, Any], resume: bool, worker: Worker
) -> SupportPictures:
    """Copy what the VLM reads into support_pictures/, all processes together, and open it."""
    path = config.output_dir / SUPPORT_FOLDER
    folder = open_folder(path, made_with, resume, worker)
    size = config.pictures_per_shard
    for name, part in worker.missing(folder, "jpegs", len(plan.support), size):
        write_pictures(folder, name, list(plan.files.pictures(plan.support.source_N2[part])))
    worker.wait()
    if worker.is_first:
        folder.finish()
    worker.wait()
    return SupportPictures(verified(path, "jpegs-"))


def write_people(
    config: PrecomputeConfig,
    plan: Plan,
    encoder: UserEncoder | None,
    pictures: SupportPictures | None,
    truth: GroundTruth | None,
    folder: ShardFolder,
    worker: Worker,
    earlier: Earlier | None = None,
) -> None:
    """people-*.safetensors and profiles-*.json, `people_per_shard` people each.

    Pairs of a picture that could not be read are no queries.
    """
    prior = None if truth is None else prior_samples(config)
    first_set_U = np.cumsum([0, *(len(person.support_E4) for person in plan.people)])
    size = config.people_per_shard
    lost_N = lost_pictures(folder.folder, plan)
    unread: dict[str, dict[str, Any]] = {}
    for name, part in worker.missing(folder, "people", len(plan.people), size):
        people = [Read(without(person, lost_N, plan)) for person in plan.people[part]]
        if encoder is not None:
            assert pictures is not None
            seed = config.seed + int(first_set_U[part.start])
            read_sets(people, plan, pictures, encoder, config, seed, unread, earlier)
            refuse_too_many(list(unread.values()), len(plan.support), config.unreadable_share)
        kept = [read for read in people if read.sets or config.support_sets == 0]
        if not kept:
            raise ValueError(f"{name}: no support set could be read: {people[0].failed[:1]}")
        tensors = people_tensors(kept, plan)
        if truth is not None and prior is not None:
            tensors |= truth_tensors(kept, plan.preferences, truth, prior)
        folder.write_json(
            beside(name, "people", "profiles"), [notes(read, plan) for read in people]
        )
        folder.write(name, tensors)


class Read:
    """One person, and what the VLM made of each support set; `failed` names those it could not.

    Until the VLM has read them, and when it never does, `sets` are all of the person's.
    """

    def __init__(self, person: PersonPairs) -> None:
        self.person = person
        self.sets: list[int] = list(range(len(person.support_E4)))
        self.encoded: dict[int, EncodedUser] = {}
        self.failed: list[dict[str, Any]] = []

    def sets_of_queries(self) -> NDArray[np.int64]:
        """As the person's sets_P, counting the sets that are left alone."""
        sets_P = self.person.sets_P
        if not self.failed:
            return sets_P
        left_P = np.zeros_like(sets_P)
        for place, index in enumerate(self.sets):
            left_P |= ((sets_P >> index) & 1) << place
        return left_P


def read_sets(
    people: Sequence[Read],
    plan: Plan,
    pictures: SupportPictures,
    encoder: UserEncoder,
    config: PrecomputeConfig,
    seed: int,
    unread: dict[str, dict[str, Any]],
    earlier: Earlier | None,
) -> None:
    """Let the VLM read every set of these people.

    A set of which it makes no profile, or with a picture that cannot be read, is left out with the
    reason: one in thousands must not cost the rest. Such pictures are added to `unread`, by uid.
    """
    asked = [(read, index) for read in people for index in read.sets]
    found = read_each(
        encoder,
        (
            (earlier and earlier.reading(read.person.support_E4[index].tolist()))
            or choices_of(read.person, index, plan, pictures)
            for read, index in asked
        ),
        len(asked),
        batch=config.encode_batch,
        seed=seed,
        running=config.generation == "running",
    )
    for (read, index), user in zip(asked, found, strict=True):
        if isinstance(user, UnreadableSetError):
            unread[user.entry["picture"]] = user.entry
        if isinstance(user, EncodingError):
            read.sets.remove(index)
            read.failed.append({"set": index, "reason": str(user)})
        else:
            read.encoded[index] = user


def choices_of(
    person: PersonPairs, index: int, plan: Plan, pictures: SupportPictures
) -> list[LabelledPair] | UnreadableSetError:
    """A support set as the VLM reads it; or which of its pictures cannot be read, and why."""
    preferences = plan.preferences
    choices = []
    for pair in person.support_E4[index].tolist():
        shown = []
        for side, place in enumerate(plan.support.place[preferences.picture_P2[pair]].tolist()):
            try:
                shown.append(pictures.open(place))
            except PictureError as error:
                entry = note(plan, int(preferences.row_P[pair]), side, error)
                return UnreadableSetError(as_line(entry), entry)
        choices.append(
            LabelledPair(
                caption=preferences.captions[preferences.caption_P[pair]],
                image_0=shown[0],
                image_1=shown[1],
                preferred=int(preferences.preferred_P[pair]),
            )
        )
    return choices


def people_tensors(people: Sequence[Read], plan: Plan) -> dict[str, NDArray[Any]]:
    """One shard's tensors. `person_*` count from 0 within the shard.

    Someone without any set (support_sets 0) has one row of E all the same: whatever stands for
    them. sets_P: bit e for the e-th of a person's rows of E, as `PersonPairs`; queries whose sets
    all failed are left out.
    """
    preferences = plan.preferences
    sets_of = [read.sets_of_queries() for read in people]
    heard = [np.flatnonzero(sets_P) for sets_P in sets_of]
    query_P = np.concatenate(
        [read.person.query_P[P] for read, P in zip(people, heard, strict=True)]
    )
    preferred_P = preferences.preferred_P[query_P]
    picture_P2 = plan.query.place[preferences.picture_P2[query_P]]
    rows = np.arange(len(query_P))
    numbers = np.arange(len(people))
    tensors = {
        "person_E": np.repeat(numbers, [max(1, len(read.sets)) for read in people]),
        "person_P": np.repeat(numbers, [len(P) for P in heard]),
        "split_P": np.concatenate(
            [read.person.split_P[P] for read, P in zip(people, heard, strict=True)]
        ),
        "sets_P": np.concatenate([sets_P[P] for sets_P, P in zip(sets_of, heard, strict=True)]),
        "chosen_P": picture_P2[rows, preferred_P],
        "rejected_P": picture_P2[rows, 1 - preferred_P],
        "caption_P": plan.caption_place[preferences.caption_P[query_P]],
    }
    encoded = [read.encoded[index] for read in people for index in read.sets if read.encoded]
    if encoded:
        tensors["user_emb_ED"] = np.stack([user.user_emb_D for user in encoded])
    return tensors


def truth_tensors(
    people: Sequence[Read], preferences: Preferences, truth: GroundTruth, prior: FloatArray
) -> dict[str, NDArray[Any]]:
    """For the upper bounds: each person's taste, and the best estimate each set's answers allow.

    Also what that estimate was made of: support_delta_E4L, looks of the second picture minus
    looks of the first, and support_preferred_E4.
    """
    taste_UL = [truth.taste(preferences.users[read.person.user]) for read in people]
    tensors = {"taste_UL": np.stack(taste_UL)}
    supports = [read.person.support_E4[index] for read in people for index in read.sets]
    if supports:
        support_E4 = np.stack(supports)
        uids = [preferences.pictures[n] for n in preferences.picture_P2[support_E4].ravel()]
        looks_E42L = np.stack([truth.looks(uid) for uid in uids]).reshape(*support_E4.shape, 2, -1)
        delta_E4L = looks_E42L[:, :, 1] - looks_E42L[:, :, 0]
        preferred_E4 = preferences.preferred_P[support_E4]
        tensors["support_delta_E4L"] = delta_E4L
        tensors["support_preferred_E4"] = preferred_E4
        tensors["posterior_EL"] = np.stack(
            [
                tastes.posterior_mean(delta_4L, preferred_4, prior)
                for delta_4L, preferred_4 in zip(delta_E4L, preferred_E4, strict=True)
            ]
        )
    return tensors


def notes(read: Read, plan: Plan) -> dict[str, Any]:
    """Who was read from what, and the profiles, for people and for the baselines with text."""
    preferences = plan.preferences

    def pair(number: int) -> dict[str, Any]:
        first, second = preferences.picture_P2[number].tolist()
        return {
            "caption": preferences.captions[preferences.caption_P[number]],
            "pictures": [preferences.pictures[first], preferences.pictures[second]],
            "preferred": int(preferences.preferred_P[number]),
        }

    sets = []
    for index in read.sets:
        entry: dict[str, Any] = {"pairs": [pair(n) for n in read.person.support_E4[index].tolist()]}
        if index in read.encoded:
            user = read.encoded[index]
            entry |= {
                "profile": user.profile,
                "confidence": user.confidence,
                "likes": user.likes,
                "dislikes": user.dislikes,
                "heading_given": user.heading_given,
            }
        sets.append(entry)
    return {
        "user_id": preferences.users[read.person.user],
        "unseen": read.person.unseen,
        "sets": sets,
        "failed": read.failed,
    }
