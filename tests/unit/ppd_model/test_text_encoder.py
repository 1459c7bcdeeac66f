"""Prompts: what is known, what is cut, and tokenizer and model that belong together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from ppd_model.files.artifact import ArtifactError, ArtifactSpec, save_artifact
from ppd_model.nets.text_encoder import (
    TextEncoder,
    build_text_model,
    load_published_tokenizer,
    load_text_encoder,
    load_word_tokenizer,
    save_word_tokenizer,
    word_tokenizer,
)
from ppd_model.presets import Preset
from tests.tiny_published import write_tokenizer_files

SMALL_CLIP = dict(
    hidden_size=16,
    intermediate_size=32,
    projection_dim=24,
    num_hidden_layers=1,
    num_attention_heads=2,
)
WORDS = ["boat", "a", "red", "sea", "the", "on"]


@pytest.fixture
def encoder(tiny: Preset) -> TextEncoder:
    tokenizer = word_tokenizer(WORDS, max_tokens=16)
    return TextEncoder(build_text_model(tiny, tokenizer), tokenizer)


def test_a_prompt_is_framed_padded_and_lower_cased(encoder: TextEncoder) -> None:
    # specials 0..3 are PAD UNK BOS EOS; words follow in order: a boat on red sea the = 4..9
    ids_BS, mask_BS = encoder.tokenize(["A red BOAT!"])
    assert ids_BS.tolist() == [[2, 4, 7, 5, 3] + [0] * 11]
    assert mask_BS.sum().item() == 5


def test_the_order_of_the_words_does_not_matter(encoder: TextEncoder) -> None:
    other = word_tokenizer([*reversed(WORDS), "Boat"], max_tokens=16)
    assert other.get_vocab() == encoder.tokenizer.get_vocab()


def test_unknown_words_are_named_once_and_as_written(encoder: TextEncoder) -> None:
    assert encoder.unknown_words("a Zebra on the red zoo-Zebra, sea") == ["Zebra", "zoo"]
    assert encoder.unknown_words("a red boat") == []
    assert encoder.unknown_words("") == []


def test_emoji_that_are_not_read_are_named_too(encoder: TextEncoder) -> None:
    assert encoder.unknown_words("a \U0001f600 boat, zoo") == ["\U0001f600", "zoo"]


@pytest.mark.parametrize("typed", ["[EOS]", "[BOS]", "[PAD]", "[UNK]", "[eos]"])
def test_a_special_token_that_is_typed_is_an_unknown_word(encoder: TextEncoder, typed: str) -> None:
    unknown = encoder.tokenizer.unk_token_id
    ids_BS, mask_BS = encoder.tokenize([f"a {typed} boat"])
    assert ids_BS.tolist() == [[2, 4, unknown, 5, 3] + [0] * 11]
    assert mask_BS.sum().item() == 5
    assert encoder.unknown_words(f"a {typed} boat") == [typed.strip("[]")]


@pytest.mark.parametrize("typed", ["<|endoftext|>", "<|startoftext|>", "!"])
def test_a_special_token_of_clip_that_is_typed_is_text(tmp_path: Path, typed: str) -> None:
    write_tokenizer_files(tmp_path / "tokenizer")
    tokenizer = load_published_tokenizer(tmp_path / "tokenizer", 40)
    text = CLIPTextConfig(
        **SMALL_CLIP,
        vocab_size=len(tokenizer),
        max_position_embeddings=40,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    encoder = TextEncoder(CLIPTextModelWithProjection(text), tokenizer)
    ids_BS, mask_BS = encoder.tokenize([f"boat {typed} red"])
    read = ids_BS[0][mask_BS[0].bool()].tolist()
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert read[0] == tokenizer.bos_token_id
    assert read[-1] == tokenizer.eos_token_id
    assert special.isdisjoint(read[1:-1])
    assert encoder.unknown_words(f"boat {typed} red") == []


def test_the_part_that_is_not_read_is_told(encoder: TextEncoder) -> None:
    fits = " ".join(["boat"] * 14)
    assert encoder.unread(fits) == ""
    assert encoder.unread(fits + " on the Sea") == "on the Sea"
    assert encoder.tokens_read("a red boat") == 3
    assert encoder.tokens_read(fits) == encoder.tokens_read(fits + " on the Sea") == 14
    read = encoder.encode([fits]).tokens_BSD
    assert torch.equal(encoder.encode([fits + " on the Sea"]).tokens_BSD, read)


def test_features_have_a_place_for_every_token(encoder: TextEncoder) -> None:
    features = encoder.encode(["a red boat", ""])
    assert features.tokens_BSD.shape == (2, 16, 16)
    assert features.pooled_B1D.shape == (2, 1, 24)
    assert not features.tokens_BSD.requires_grad


def test_a_prompt_reads_the_same_alone_and_in_company(encoder: TextEncoder) -> None:
    encoder.model.double()  # rounds by 1e-16 of a few units, some hundred times over
    together = encoder.encode(["a red boat", "the sea"])
    alone = encoder.encode(["the sea"])
    torch.testing.assert_close(together.tokens_BSD[1:], alone.tokens_BSD, rtol=0, atol=1e-12)
    torch.testing.assert_close(together.pooled_B1D[1:], alone.pooled_B1D, rtol=0, atol=1e-12)


def test_pooled_text_is_read_at_the_end_of_the_prompt(encoder: TextEncoder) -> None:
    # Causal attention: what stands after the end token cannot matter, what stands before it does.
    ids_BS, mask_BS = encoder.tokenize(["a red boat"])
    padded_BS = ids_BS.clone()
    padded_BS[0, 5:] = 9
    pooled = encoder.features(ids_BS, mask_BS).pooled_B1D
    torch.testing.assert_close(encoder.features(padded_BS, mask_BS).pooled_B1D, pooled)
    ids_BS[0, 2] = 9
    assert (encoder.features(ids_BS, mask_BS).pooled_B1D - pooled).abs().max() > 1e-4


def test_no_prompts_are_refused(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match="no prompts"):
        encoder.encode([])


def test_a_tokenizer_of_another_size_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(ArtifactError, match="tokenizer of 11 tokens, text model of 10"):
        TextEncoder(encoder.model, word_tokenizer([*WORDS, "tree"], max_tokens=16))


def test_saved_and_loaded_it_reads_the_same(
    tiny: Preset, encoder: TextEncoder, tmp_path: Path
) -> None:
    weights, tokenizer = tmp_path / "text_encoder.safetensors", tmp_path / "text_tokenizer.json"
    spec = ArtifactSpec("text_encoder", tiny.text_encoder, tiny.base_model)
    save_artifact(weights, encoder.model.state_dict(), spec)
    save_word_tokenizer(encoder.tokenizer, tokenizer)
    loaded = load_text_encoder(tiny, weights, tokenizer)
    prompt = "a red zebra on the sea"
    assert torch.equal(loaded.encode([prompt]).tokens_BSD, encoder.encode([prompt]).tokens_BSD)
    assert loaded.unknown_words(prompt) == ["zebra"]


def test_a_missing_or_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text_tokenizer.json"
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*text_tokenizer\.json"):
        load_word_tokenizer(path, 16)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match="not a readable tokenizer"):
        load_word_tokenizer(path, 16)
