"""What teaches mini's VLM to obey words: statements, targets, and rows that share their choices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ppd_model import prompts
from ppd_model.files.artifact import ArtifactSpec, save_artifact
from ppd_model.user_encoder import VLM_FILE, small_tokenizer
from tests.tiny_vlm import make_model
from training.pretrain.vlm.tokenizer import train_tokenizer
from training.pretrain.words import statements, vocabulary
from training.pretrain.words.adopt import BASE_MODEL, check_space
from training.pretrain.words.continued import spelled_by
from training.pretrain.words.embedding_map import STATED, EmbeddingMap
from training.pretrain.words.examples import Packer, Row, Text, transcripts
from training.pretrain.words.language import Features, hidden_states
from training.pretrain.words.readings import Readings, read_people
from training.pretrain.words.statements import Statement
from training.pretrain.words.vocabulary import Term
from training.world.scene import LOOKS

DIM = 32


def says(**values: float) -> np.ndarray:
    return np.array([values.get(look, 0.0) for look in LOOKS], dtype=np.float32)


@pytest.fixture(scope="module")
def space() -> EmbeddingMap:
    """Embeddings that hold the taste in their first directions, and noise."""
    rng = np.random.default_rng(0)
    taste_NL = rng.normal(0, 0.3, (4000, len(LOOKS)))
    turn_LD = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][: len(LOOKS)]
    return EmbeddingMap.fit(5 + 3 * taste_NL @ turn_LD + rng.normal(0, 0.1, (4000, DIM)), taste_NL)


def test_an_adapter_of_another_space_is_refused(tmp_path: Path) -> None:
    spec = ArtifactSpec("vlm", {}, BASE_MODEL, {"space_of": "vlm-old"})
    save_artifact(tmp_path / VLM_FILE, {"x": torch.zeros(1)}, spec)
    check_space(tmp_path, "vlm-old.paper.greedy.layer-1", "adapter")
    with pytest.raises(ValueError, match="in the space of 'vlm-old'"):
        check_space(tmp_path, "vlm-other.paper.greedy.layer-1", "adapter")


def test_what_is_written_into_an_embedding_is_read_from_it(space: EmbeddingMap) -> None:
    np.testing.assert_allclose(space.write_LD @ space.read_DL, np.eye(len(LOOKS)), atol=1e-9)


def test_what_is_stated_wins_and_what_was_shown_stays(space: EmbeddingMap) -> None:
    shown_L = says(warmth=0.5, detail=-0.4, size=0.2, outline=0.1)
    emb_D = space.mean_D + shown_L @ space.write_LD
    stated_L = space.read(space.stated(says(warmth=-1.0, outline=-0.5), emb_D)[None])[0]
    level = STATED / np.sqrt(1 + 0.25)
    wanted_L = says(warmth=-level, outline=-level / 2, detail=-0.4, size=0.2)
    np.testing.assert_allclose(stated_L, wanted_L, atol=1e-6)


def test_a_statement_that_the_choices_bear_out_counts_half_as_far(space: EmbeddingMap) -> None:
    strong_D = space.mean_D + says(warmth=0.9) @ space.write_LD
    np.testing.assert_allclose(space.stated(says(warmth=1.0), strong_D), strong_D, atol=1e-6)
    weak_D = space.mean_D + says(warmth=0.1) @ space.write_LD
    read_L = space.read(space.stated(says(warmth=1.0), weak_D)[None])[0]
    np.testing.assert_allclose(read_L, says(warmth=STATED / 2), atol=1e-6)


def test_words_alone_are_the_stated_taste_and_nothing_else(space: EmbeddingMap) -> None:
    read_L = space.read(space.stated(says(brightness=1.0))[None])[0]
    np.testing.assert_allclose(read_L, says(brightness=STATED), atol=1e-9)


def test_terms_speak_of_the_look_that_they_are_listed_under() -> None:
    by_text = {t.text: t.says_L for t in (*vocabulary.adjectives(), *vocabulary.nouns())}
    np.testing.assert_array_equal(by_text["cosy"], says(warmth=1.0))
    np.testing.assert_array_equal(by_text["dark corners"], says(vignette=1.0))
    np.testing.assert_array_equal(by_text["vivid colors"], says(saturation=1.0))
    np.testing.assert_array_equal(by_text["gloomy"], says(brightness=-1.0, saturation=-0.5))


def test_no_text_means_two_things() -> None:
    seen: dict[str, np.ndarray] = {}
    for term in (*vocabulary.adjectives(), *vocabulary.comparatives(), *vocabulary.nouns()):
        np.testing.assert_array_equal(seen.setdefault(term.text, term.says_L), term.says_L)


def test_statements_are_the_sum_of_their_terms_and_never_against_themselves() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        said = statements.typed(rng)
        assert (np.abs(said.says_L) <= 1.4 + 1e-6).all()
        if said.terms:
            together = np.stack([term.says_L for term in said.terms])
            assert (together.max(axis=0) * together.min(axis=0) >= 0).all(), said.text
        for term in said.terms:
            assert term.text.lower() in said.text.lower()


def test_negation_turns_a_term_round() -> None:
    rng = np.random.default_rng(0)
    turned = [s for s in (statements.typed(rng) for _ in range(600)) if len(s.terms) == 1]
    by_text = {t.text: t.says_L for t in (*vocabulary.adjectives(), *vocabulary.nouns())}
    without = [s for s in turned if s.text.lower().startswith(("without ", "no ", "avoid "))]
    assert without
    for said in without:
        (term,) = said.terms
        main = np.abs(by_text[term.text]).argmax()
        assert said.says_L[main] * by_text[term.text][main] < 0, said.text


def test_a_profile_in_the_models_own_words_states_what_it_names() -> None:
    said = statements.of_profile("Prefers sunny scenes. Avoids thick outlines.")
    np.testing.assert_array_equal(said.says_L, says(brightness=1.0, outline=-1.0))
    assert [term.text for term in said.terms] == ["sunny scenes", "thick outlines"]


def test_words_that_name_looks_are_known_and_told_from_those_around_them() -> None:
    words = statements.known_words()
    assert {"cosy", "vignette", "moody", "pastel"} <= words.naming
    assert {"very", "not", "without", "pictures"} <= words.others
    assert words.unread("I love warm pictures of zebras") == ["zebras"]


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("words") / "vlm_tokenizer.json"
    train_tokenizer(["Prefers bright pictures, not dark.", "a house"], 300, path)
    return path


def row(texts: list[Text]) -> Row:
    captions = [prompts.LabelledCaption("a house", 1)] * prompts.N_PAIRS
    prompt = prompts.build_prompt(captions)
    return Row(prompt.text, f"bright.{prompts.profile_heading()}", list(range(8)), texts, says())


def test_texts_that_share_their_choices_are_read_as_if_each_had_them_alone(
    tokenizer_path: Path,
) -> None:
    model, _ = make_model(tokenizer_path, DIM)
    rng = np.random.default_rng(0)
    features = Features(np.arange(8), rng.normal(size=(8, 4, 16)).astype(np.float16))
    pack = Packer(small_tokenizer(tokenizer_path), tokens_per_image=5)
    target_D = np.zeros(DIM)
    texts = [
        Text("Prefers bright.", target_D, "own", to_write=True),
        Text("not dark pictures", target_D, "stated"),
        Text("bright", target_D, "stated"),
    ]
    with torch.inference_mode():
        batch = pack([row(texts), row(texts[1:])])
        together = hidden_states(model, batch, features)[0][batch.final_at]
        for number, text in enumerate(texts):
            one = pack([row([text])])
            alone = hidden_states(model, one, features)[0][one.final_at][0]
            torch.testing.assert_close(together[number], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_a_term_is_supervised_at_its_last_token(tokenizer_path: Path) -> None:
    tokenizer = small_tokenizer(tokenizer_path)
    bright, dark = says(brightness=1.0), says(contrast=0.9)
    terms = (Term("bright", bright), Term("dark", dark, factor=-0.9))
    said = Statement("Bright, not DARK.", bright + dark, terms)
    texts = [Text(said.text, np.zeros(DIM), "alone", said=said)]
    batch = Packer(tokenizer, 5)([Row("", prompts.profile_heading(), [], texts)])
    ends = [
        tokenizer.decode(batch.input_ids_BS[0, 1 : at + 1]) for at in batch.terms_at[1].tolist()
    ]
    assert ends == [" Bright", " Bright, not DARK"]
    by_itself = says(contrast=-1.0)
    told = np.concatenate([[-0.9], by_itself, dark, bright + dark])
    np.testing.assert_allclose(batch.terms[1], told, rtol=1e-6)


def test_what_is_kept_is_all_that_the_texts_of_a_row_share(tokenizer_path: Path) -> None:
    pack = Packer(small_tokenizer(tokenizer_path), 5)
    texts = [Text("bright", np.zeros(DIM), "stated"), Text("dark dark", np.zeros(DIM), "own")]
    batch = pack([row(texts), row(texts[:1])])
    alone = transcripts(batch)
    assert alone.shared_BS.sum(dim=1).tolist() == [alone.input_ids_BS.shape[1]] * 2
    heading = small_tokenizer(tokenizer_path).convert_tokens_to_ids(prompts.profile_heading())
    assert batch.input_ids_BS[:, alone.input_ids_BS.shape[1]].tolist() == [heading] * 2


def test_only_the_profile_in_better_words_is_learned_as_words(tokenizer_path: Path) -> None:
    tokenizer = small_tokenizer(tokenizer_path)
    texts = [
        Text("Prefers bright.", np.zeros(DIM), "own", to_write=True),
        Text("dark", np.zeros(DIM), "stated"),
    ]
    batch = Packer(tokenizer, 5)([row(texts)])
    learned = tokenizer.decode(batch.words)
    assert learned.endswith("User Profile: Prefers bright.<|im_end|>")


def test_a_known_token_keeps_its_row_and_a_new_one_is_spelled(tmp_path: Path) -> None:
    train_tokenizer(["a house"], 300, tmp_path / "old.json")
    train_tokenizer(["a house", "cosy cosy cosy"], 300, tmp_path / "new.json")
    old, new = small_tokenizer(tmp_path / "old.json"), small_tokenizer(tmp_path / "new.json")
    spelled = spelled_by(old, new)
    (house,) = new(" house")["input_ids"]
    assert spelled[house] == old(" house")["input_ids"]
    cosy = new.convert_tokens_to_ids("cosy")
    assert spelled[cosy] == old("cosy")["input_ids"]
    assert len(spelled[cosy]) == 4


def test_readings_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    one = Readings(
        taste_NL=np.zeros((2, 8), np.float32),
        pictures_NP2=np.zeros((2, 4, 2), np.int64),
        preferred_NP=np.zeros((2, 4), np.int64),
        captions_NP=np.array([["a"] * 4] * 2),
        variant_N=np.array(["paper"] * 2),
        response_N=np.array(["User Profile: Prefers a.", "longer User Profile: b."]),
        user_emb_ND=np.ones((2, 3), np.float32),
    )
    one.save(tmp_path / "readings-00000.npz")
    one.save(tmp_path / "readings-00001.npz")

    def load(variant: str) -> None:
        raise AssertionError(f"asked for the encoder of {variant}")

    read = read_people(tmp_path, 100, world=None, seed=0, load=load)  # type: ignore[arg-type]
    assert len(read) == 4
    assert str(read.response_N[1]) == "longer User Profile: b."
