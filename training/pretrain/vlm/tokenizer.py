"""mini's VLM tokenizer: byte-level BPE like Qwen's, learned from the world's own sentences.

A word of the world becomes one token; any other text falls back to pieces and bytes, so nothing
is lost. Every fixed phrase of the prompts is one added token, which keeps sequences short.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ppd_model import prompts

SPECIAL_TOKENS = ("<|endoftext|>", *prompts.CHAT_TOKENS, "<video>")


def train_tokenizer(sentences: Iterable[str], vocab_size: int, path: Path) -> None:
    """Learn the tokenizer from sentences (which should include captions) and write it as json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    phrases = sorted({p for v in prompts.VARIANTS for p in prompts.fixed_phrases(v)})
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
