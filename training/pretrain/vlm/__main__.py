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

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from ppd_model import prompts
from ppd_model.checkpoint import ArtifactSpec, save_artifact, sha256_of
from ppd_model.presets import get_preset
from ppd_model.user_encoder import TOKENIZER_FILE, VLM_FILE, UserEncoder, small_tokenizer
from training.configuration import Configuration, parse_command_line, save_resolved
from training.pretrain.vlm import held_out_scores
from training.pretrain.vlm.examples import (
    Collator,
    LanguageBatch,
    World,
    make_example,
    tokenizer_sentences,
)
from training.pretrain.vlm.tokenizer import train_tokenizer
from training.pretrain.vlm.vision import (
    VisionHeads,
    all_features,
    small_pictures,
    vision_batch,
    vision_loss,
)
from training.world.scene import LOOKS
from training.world.store import PictureStore


class VlmConfig(Configuration):
    """Everything that a run follows from; see training/configs/mini_vlm.yaml."""

    world: Path
    out: Path
    seed: int = 1
    threads: int = 1
    holdout_share: float = 0.1
    """Share of the store, at its end, that is never trained on."""
    vocab_size: int = 1200
    max_new_tokens: int = 160
    image_px: int = 128
    patch_px: int = 32
    vision_width: int = 192
    vision_layers: int = 3
    vision_batch: int = 48
    vision_steps: int = 800
    vision_lr: float = 1e-3
    width: int = 128
    layers: int = 6
    heads: int = 4
    mlp_width: int = 384
    language_pictures: int = 16000
    """Pictures, from the store's start, that transcripts are made of."""
    batch: int = 8
    steps: int = 2200
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_steps: int = 60
    words_weight: float = 1.0
    looks_weight: float = 1.0
    deltas_weight: float = 0.5
    taste_weight: float = 8.0
    prior_size: int = 8192
    log_every: int = 20
    checkpoint_every_s: float = 180
    evaluate_every_s: float = 600
    evaluation_people: int = 512


class TasteHeads(nn.Module):
    """Linear read-outs of the language model's last layer; used for training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.looks = nn.Linear(width, len(LOOKS))
        self.deltas = nn.Linear(width, len(LOOKS))
        self.estimate = nn.Linear(width, len(LOOKS))
        self.taste = nn.Linear(width, len(LOOKS))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
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
    (config.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
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


def trained_on(config: VlmConfig, store: PictureStore) -> slice:
    """The part of the store that may be trained on."""
    return slice(0, round(len(store) * (1 - config.holdout_share)))


def held_out(config: VlmConfig, store: PictureStore) -> slice:
    """The part of the store that is only evaluated on."""
    return slice(round(len(store) * (1 - config.holdout_share)), len(store))


def train_vision(
    config: VlmConfig,
    model: LlavaOnevisionForConditionalGeneration,
    store: PictureStore,
    log: Log,
    resume: bool,
) -> None:
    """Stage 2: the tower alone; leaves it in eval mode and frozen."""
    tower = model.model.vision_tower
    heads = VisionHeads(config.vision_width)
    pictures = small_pictures(store, config.image_px)
    candidates = np.arange(len(store))[trained_on(config, store)]
    unseen = np.arange(len(store))[held_out(config, store)][:512]

    def step(number: int) -> tuple[Tensor, dict[str, Any]]:
        rng = np.random.default_rng((config.seed, 2, number))
        indices = rng.choice(candidates, config.vision_batch, replace=False)
        loss = vision_loss(tower, heads, *vision_batch(store, pictures, indices, rng))
        return loss.total, {"subject": loss.subject_accuracy, "setting": loss.setting_accuracy}

    def evaluate(number: int) -> None:
        with torch.inference_mode():
            rng = np.random.default_rng(0)
            loss = vision_loss(tower, heads, *vision_batch(store, pictures, unseen, rng))
        variance_L = store.looks[unseen].clip(-3, 3).var(axis=0)
        r2_L = 1 - loss.looks_mse_L.numpy() / variance_L
        r2 = {name: round(float(v), 3) for name, v in zip(LOOKS, r2_L, strict=True)}
        log.write(
            "vision_eval",
            step=number,
            r2=r2,
            subject=loss.subject_accuracy,
            setting=loss.setting_accuracy,
        )

    trained = nn.ModuleDict({"tower": tower, "heads": heads})
    run_steps(
        trained,
        step,
        evaluate,
        config.out / "vision.pt",
        log,
        resume,
        stage="vision",
        steps=config.vision_steps,
        lr=config.vision_lr,
        config=config,
    )
    tower.eval().requires_grad_(False)


def cache_features(
    config: VlmConfig,
    model: LlavaOnevisionForConditionalGeneration,
    store: PictureStore,
    log: Log,
    resume: bool,
) -> NDArray[np.float16]:
    """Stage 3: the tower's features of the transcripts' pictures, N x S x D, kept on disk."""
    path = config.out / "features.npy"
    if not (resume and path.exists()):
        pictures = small_pictures(store, config.image_px)[: config.language_pictures]
        features = np.concatenate(list(all_features(model.model.vision_tower, pictures)))
        unfinished = path.with_suffix(".unfinished.npy")
        np.save(unfinished, features)
        unfinished.rename(path)
        log.write(
            "features",
            shape=list(features.shape),
            std=float(features[:512].astype(np.float32).std()),
        )
    loaded: NDArray[np.float16] = np.load(path)
    return loaded


def train_language(
    config: VlmConfig,
    model: LlavaOnevisionForConditionalGeneration,
    store: PictureStore,
    features_NSD: NDArray[np.float16],
    tokenizer_path: Path,
    log: Log,
    resume: bool,
) -> TasteHeads:
    """Stage 4: projector and language model, on transcripts over cached features."""
    if trained_on(config, store).stop < config.language_pictures:
        raise ValueError(f"{config.language_pictures} pictures overlap with those held out")
    world = World(store, slice(0, config.language_pictures), config.prior_size, config.seed)
    tokens_per_image = features_NSD.shape[1] + 1
    collate = Collator(small_tokenizer(tokenizer_path), tokens_per_image)
    heads = TasteHeads(config.width)

    def step(number: int) -> tuple[Tensor, dict[str, Any]]:
        rng = np.random.default_rng((config.seed, 4, number))
        batch = collate([make_example(world, rng) for _ in range(config.batch)])
        return language_loss(config, model, heads, batch, features_NSD)

    def evaluate(number: int) -> None:
        model.eval()
        report = held_out_scores.evaluate(
            held_out_scores.encoder_of(model, tokenizer_path, config.max_new_tokens),
            store,
            held_out(config, store),
            people=32,
            seed=config.seed,
            taste_head=heads.taste,
        )
        log.write("language_eval", step=number, **report)
        model.requires_grad_(True)
        model.model.vision_tower.requires_grad_(False)
        model.train()

    trained = nn.ModuleDict(
        {
            "projector": model.model.multi_modal_projector,
            "language": model.model.language_model,
            "lm_head": model.lm_head,
            "heads": heads,
        }
    )
    newline = nn.ParameterDict({"image_newline": model.model.image_newline})
    trained["newline"] = newline
    run_steps(
        trained,
        step,
        evaluate,
        config.out / "language.pt",
        log,
        resume,
        stage="language",
        steps=config.steps,
        lr=config.lr,
        config=config,
    )
    model.eval()
    return heads


def language_loss(
    config: VlmConfig,
    model: LlavaOnevisionForConditionalGeneration,
    heads: TasteHeads,
    batch: LanguageBatch,
    features_NSD: NDArray[np.float16],
) -> tuple[Tensor, dict[str, Any]]:
    """Next tokens of the response, and the four read-outs; all in one pass."""
    hidden_BSD = hidden_states(model, batch, features_NSD)
    answer_BS = batch.labels_BS[:, 1:] >= 0
    logits_NV = model.lm_head(hidden_BSD[:, :-1][answer_BS])
    words = functional.cross_entropy(logits_NV, batch.labels_BS[:, 1:][answer_BS])
    looks = functional.mse_loss(heads.looks(hidden_BSD[batch.looks_at]), batch.looks)
    deltas = functional.mse_loss(heads.deltas(hidden_BSD[batch.deltas_at]), batch.deltas)
    # The words of a difference give its direction away: it must be known before they are said.
    unsaid = functional.mse_loss(heads.deltas(hidden_BSD[batch.unsaid_at]), batch.unsaid)
    estimate = functional.mse_loss(heads.estimate(hidden_BSD[batch.heading_at]), batch.estimates)
    read_BL = heads.taste(hidden_BSD[batch.final_at])
    taste = functional.mse_loss(read_BL, batch.targets)
    direction = functional.cosine_similarity(read_BL, batch.targets).mean()
    total = (
        config.words_weight * words
        + config.looks_weight * looks
        + config.deltas_weight * (deltas + unsaid)
        + config.taste_weight * (taste + 0.5 * estimate)
        + 0.5 * (1 - direction)
    )
    return total, {
        "words": float(words.detach()),
        "looks": float(looks.detach()),
        "deltas": float(deltas.detach()),
        "unsaid": float(unsaid.detach()),
        "estimate": float(estimate.detach()),
        "taste": float(taste.detach()),
        "cosine": float(direction.detach()),
        "tokens": batch.input_ids_BS.shape[1],
    }


def hidden_states(
    model: LlavaOnevisionForConditionalGeneration,
    batch: LanguageBatch,
    features_NSD: NDArray[np.float16],
) -> Tensor:
    """The last layer's states B x S x D, as the whole model makes them from the pixels."""
    inner = model.model
    features = torch.from_numpy(features_NSD[batch.image_rows]).float()
    images = inner.multi_modal_projector(features)
    newline = inner.image_newline.expand(len(images), 1, -1)
    image_tokens = torch.cat([images, newline], dim=1).flatten(0, 1)
    embeds_BSD = inner.language_model.embed_tokens(batch.input_ids_BS)
    is_image_BS1 = (batch.input_ids_BS == model.config.image_token_id)[..., None]
    embeds_BSD = embeds_BSD.masked_scatter(is_image_BS1, image_tokens)
    # Padding is on the right and attention is causal: no mask is needed.
    output = inner.language_model(inputs_embeds=embeds_BSD, use_cache=False)
    hidden_BSD: Tensor = output.last_hidden_state
    return hidden_BSD


def run_steps(
    trained: nn.Module,
    step: Callable[[int], tuple[Tensor, dict[str, Any]]],
    evaluate: Callable[[int], None],
    path: Path,
    log: Log,
    resume: bool,
    *,
    stage: str,
    steps: int,
    lr: float,
    config: VlmConfig,
) -> None:
    """AdamW with warm-up and cosine decay; step n follows from the seed and n alone, so a resumed
    run is the uninterrupted one."""
    decayed = [p for p in trained.parameters() if p.ndim >= 2]
    others = [p for p in trained.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    start = 0
    if resume and path.exists():
        state = torch.load(path, weights_only=True)
        trained.load_state_dict(state["trained"])
        optimizer.load_state_dict(state["optimizer"])
        start = int(state["step"])
    trained.train()
    parameters = [p for p in trained.parameters() if p.requires_grad]
    saved_at = evaluated_at = logged_at = time.monotonic()
    sums: dict[str, float] = {}
    for number in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(number, steps, config.warmup_steps)
        loss, parts = step(number)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimizer.step()
        optimizer.zero_grad()
        for name, value in {"loss": float(loss.detach()), "norm": float(norm), **parts}.items():
            sums[name] = sums.get(name, 0.0) + value
        now = time.monotonic()
        if (number + 1) % config.log_every == 0:
            means = {name: round(value / config.log_every, 4) for name, value in sums.items()}
            rate = config.log_every / (now - logged_at)
            log.write(stage, step=number + 1, of=steps, steps_per_s=round(rate, 2), **means)
            sums, logged_at = {}, now
        if now - saved_at > config.checkpoint_every_s:
            save_checkpoint(path, trained, optimizer, number + 1)
            saved_at = now
        if now - evaluated_at > config.evaluate_every_s:
            evaluate(number + 1)
            evaluated_at = logged_at = time.monotonic()
            sums = {}
    if start < steps:
        save_checkpoint(path, trained, optimizer, steps)
        evaluate(steps)


def schedule(number: int, steps: int, warmup_steps: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then half a cosine to 1 %."""
    if number < warmup_steps:
        return (number + 1) / warmup_steps
    progress = (number - warmup_steps) / max(1, steps - warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def save_checkpoint(
    path: Path, trained: nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write everything that is needed to go on, in one move."""
    unfinished = path.with_suffix(".unfinished")
    state = {"trained": trained.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, unfinished)
    unfinished.rename(path)


def export(
    config: VlmConfig, model: LlavaOnevisionForConditionalGeneration, tokenizer_path: Path
) -> str:
    """Stage 5: fp16 weights and the tokenizer in ``out/export``; returns the weights' sha256."""
    folder = config.out / "export"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER_FILE).write_bytes(tokenizer_path.read_bytes())
    spec = ArtifactSpec(
        kind="vlm",
        config={
            "model": model_config_dict(model.config),
            "max_new_tokens": config.max_new_tokens,
        },
        base_model=get_preset("mini").base_model,
        extra={"tokenizer_sha256": sha256_of(tokenizer_path)},
    )
    return save_artifact(folder / VLM_FILE, model.state_dict(), spec, dtype=torch.float16)


def model_config_dict(config: LlavaOnevisionConfig) -> dict[str, Any]:
    """What rebuilds the configuration: plain values that differ from the classes' defaults."""
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    for name in ("transformers_version", "architectures", "dtype"):
        plain.pop(name, None)
    return plain


class Log:
    """One JSON object per line in a file, and on standard output."""

    def __init__(self, path: Path, keep: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._start = time.monotonic()
        if not keep:
            path.write_text("")

    def write(self, event: str, **values: Any) -> None:
        """Append one event."""
        line = json.dumps({"event": event, "s": round(time.monotonic() - self._start), **values})
        with self._path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
