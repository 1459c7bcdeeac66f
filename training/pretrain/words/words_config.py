"""Every option of the training that teaches mini's VLM to obey words."""

from __future__ import annotations

from pathlib import Path

from ppd_model.pipeline import MINI_WEIGHTS_DIR
from training.jobs.shared_options import Out, Seed, Threads
from training.pretrain.vlm.vlm_config import StepsConfig


class WordsConfig(StepsConfig):
    """One run, which continues a VLM and keeps its embedding space."""

    world: Path
    """Pictures that training.world.store painted."""
    vlm: Path = MINI_WEIGHTS_DIR
    """Folder of the VLM that is continued: vlm.safetensors and vlm_tokenizer.json."""
    out: Out
    start: Path | None = None
    """A checkpoint (language.pt) of an earlier run to go on from; null: the VLM as it is."""
    seed: Seed = 1
    threads: Threads = 1
    people: int = 1920
    """Simulated people whom the VLM reads beforehand; their readings anchor the space."""
    holdout_share: float = 0.1
    """Share of the store, at its end, that is never trained on."""
    held_out_people: int = 64
    """People of the pictures held out, for evaluation."""
    vocab_size: int = 2000
    """Of the tokenizer, at most."""
    batch: int = 2
    """People of a step."""
    texts: int = 16
    """Texts of a row: that are read with each person's choices, or without any."""
    rows_alone: int = 10
    """Rows of a step whose texts are read without choices."""
    steps: int = 3000
    """Steps of the language model."""
    lr: float = 1.2e-3
    """Learning rate."""
    words_weight: float = 0.5
    """Of the loss of the next tokens: the response, and the profile in better words."""
    estimate_weight: float = 4.0
    """Of the loss of the taste that is known before the profile is written."""
    terms_weight: float = 10.0
    """Of the loss of what each term says, and what all has been said, at the term's end."""
    drift_weight: float = 20.0
    """Of the relative change of the states in which choices are read."""
    own_weight: float = 4.0
    """Of the loss of the embedding where the profile is the person's own."""
    stated_weight: float = 2.0
    """Of the loss of the embedding where a text states something."""
    prior_size: int = 8192
    """Tastes that answers are weighed against."""
