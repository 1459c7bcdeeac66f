"""Sets that join and leave one running generation are read as if each were alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppd_model.running_readings import RunningReadings
from ppd_model.types import LabelledPair
from ppd_model.user_encoder import EncodedUser, EncodingError, UserEncoder
from tests.tiny_vlm import RESPONSE, four_choices, make_encoder, write_tokenizer

MANY = [four_choices(seed, caption) for seed, caption in enumerate(["a house", "bright"] * 3)]


@pytest.fixture(scope="module")
def mini() -> UserEncoder:
    return UserEncoder.load("mini")


def read(
    encoder: UserEncoder, many: list[list[LabelledPair]], rows: int, seed: int = 0
) -> list[EncodedUser | EncodingError]:
    found = dict(RunningReadings(encoder, rows, joining=2).read(enumerate(many), seed))
    assert sorted(found) == list(range(len(many)))
    return [found[number] for number in range(len(many))]


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_mini_reads_each_set_as_it_reads_it_alone(mini: UserEncoder, rows: int) -> None:
    for alone, found in zip(map(mini.encode, MANY), read(mini, MANY, rows), strict=True):
        assert isinstance(found, EncodedUser)
        assert found.transcript == alone.transcript
        assert (found.profile, found.likes) == (alone.profile, alone.likes)
        assert np.allclose(found.user_emb_D, alone.user_emb_D, rtol=1e-4, atol=1e-4)
        assert found.confidence == pytest.approx(alone.confidence, rel=1e-4)


def test_no_clean_pass_is_needed_where_the_text_is_what_was_written(
    mini: UserEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("read twice")

    monkeypatch.setattr(mini, "_read", refuse)
    assert all(isinstance(found, EncodedUser) for found in read(mini, MANY[:3], 2))


def test_a_sampled_set_has_its_own_draws_in_any_company(tmp_path: Path) -> None:
    encoder = UserEncoder.load("mini", decoding="sample")
    together = read(encoder, MANY[:4], 3, seed=7)
    for number, found in enumerate(together):
        alone = encoder.encode(MANY[number], seed=7 + number)
        assert isinstance(found, EncodedUser)
        assert found.transcript == alone.transcript


def test_a_response_without_a_profile_is_read_as_before(tmp_path: Path) -> None:
    """Random weights write no heading: each set is read again, alone, and helped to one."""
    encoder = make_encoder(write_tokenizer(tmp_path))

    def alone(choices: list[LabelledPair]) -> EncodedUser | EncodingError:
        try:
            return encoder.encode(choices)
        except EncodingError as error:
            return error

    def said(of: EncodedUser | EncodingError) -> str:
        return f"{of.transcript}{of.user_emb_D}" if isinstance(of, EncodedUser) else str(of)

    found = read(encoder, MANY[:3], 2)
    assert [said(each) for each in found] == [said(alone(choices)) for choices in MANY[:3]]


def test_a_set_that_comes_to_nothing_costs_no_other(
    mini: UserEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(ids: object) -> str:
        return "no profile" if not seen else usual(ids)

    seen: list[int] = []
    usual = mini.response_of

    def encode(choices: object, *, seed: int) -> EncodedUser:
        seen.append(seed)
        raise EncodingError("nothing was written")

    monkeypatch.setattr(mini, "response_of", nothing)
    monkeypatch.setattr(mini, "encode", encode)
    found = read(mini, MANY[:3], 1, seed=4)
    assert [isinstance(each, EncodingError) for each in found] == [True, False, False]
    assert seen == [4]


def test_text_that_is_other_tokens_than_were_written_has_a_clean_pass(
    mini: UserEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini, "response_of", lambda ids: RESPONSE)
    (found,) = read(mini, MANY[:1], 1)
    asked = mini.prompt_of(MANY[0])
    expected = mini.read_response(MANY[0], asked, RESPONSE)
    assert isinstance(found, EncodedUser)
    assert np.array_equal(found.user_emb_D, expected.user_emb_D)
