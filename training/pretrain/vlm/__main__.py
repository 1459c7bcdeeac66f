"""Train mini's VLM from nothing. START HERE.

    python -m training.pretrain.vlm --config training/configs/mini_vlm.yaml [--resume]

1. a tokenizer from the world's sentences; 2. the vision tower alone, from measured looks;
3. its features of all pictures, cached; 4. the language model: transcripts by next token, and, as
that alone need not put the taste into the final token's state, linear read-outs of looks,
differences and taste at the tokens where they belong; 5. export; 6. evaluation of what was
exported, on people, pictures and answers never trained on.

Every step is kept in ``out``: what is finished is not done again with ``--resume``, and the two
trainings continue from their last checkpoint. Progress is in ``out/log.jsonl``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from ppd_model import prompts
from ppd_model.user_encoder import TOKENIZER_FILE, UserEncoder, small_tokenizer
from training.jobs.command_line import parse_command_line, run_command
from training.jobs.configuration import save_resolved
from training.jobs.files import write_json
from training.pretrain.vlm import held_out_scores
from training.pretrain.vlm.examples import (
    tokenizer_sentences,
)
from training.pretrain.vlm.language import train_language
from training.pretrain.vlm.saving import save_vlm
from training.pretrain.vlm.steps import Log
from training.pretrain.vlm.tokenizer import train_tokenizer
from training.pretrain.vlm.vision_training import cache_features, train_vision
from training.pretrain.vlm.vlm_config import VlmConfig, held_out
from training.world.store import PictureStore


def main(argv: Sequence[str] | None = None) -> None:
    config, resume = parse_command_line(VlmConfig, argv, __doc__)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    save_resolved(config, config.out)
    log = Log(config.out / "log.jsonl", resume)
    store = PictureStore(config.world)

    tokenizer_path = config.out / TOKENIZER_FILE
    if not (resume and tokenizer_path.exists()):
        train_tokenizer(tokenizer_sentences(4000, config.seed), config.vocab_size, tokenizer_path)
    model = build_model(config, tokenizer_path)
    train_vision(config, model, store, log, resume)
    features = cache_features(config, model, store, log, resume)
    heads = train_language(config, model, store, features, tokenizer_path, log, resume)
    version = export(config, model, tokenizer_path)
    log.write("export", sha256=version, folder=str(config.out / "export"))
    report = held_out_scores.evaluate(
        UserEncoder.load("mini", config.out / "export"),
        store,
        held_out(config, store),
        people=config.evaluation_people,
        seed=config.seed,
        taste_head=heads.taste,
    )
    report["weights_sha256"] = version
    write_json(config.out / "report.json", report)
    log.write("report", **report)


def build_model(config: VlmConfig, tokenizer_path: Path) -> LlavaOnevisionForConditionalGeneration:
    """A LLaVA-OneVision of mini's size with random weights."""
    tokenizer = small_tokenizer(tokenizer_path)
    model_config = LlavaOnevisionConfig(
        vision_config=dict(
            model_type="siglip_vision_model",
            hidden_size=config.vision_width,
            intermediate_size=3 * config.vision_width,
            num_hidden_layers=config.vision_layers,
            num_attention_heads=config.vision_width // 32,
            image_size=config.image_px,
            patch_size=config.patch_px,
            vision_use_head=False,
        ),
        text_config=dict(
            model_type="qwen2",
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(prompts.IMAGE_TOKEN),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[config.image_px, config.image_px]],
    )
    return LlavaOnevisionForConditionalGeneration(model_config)


def export(
    config: VlmConfig, model: LlavaOnevisionForConditionalGeneration, tokenizer_path: Path
) -> str:
    """Stage 5: fp16 weights and the tokenizer in ``out/export``; returns the weights' sha256."""
    folder = config.out / "export"
    return save_vlm(folder, model, tokenizer_path, {"max_new_tokens": config.max_new_tokens}, {})


if __name__ == "__main__":
    run_command(main)
