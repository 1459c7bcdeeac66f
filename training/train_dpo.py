"""START HERE: trains the adapter on people's preferences (paper, Eq. 3, 6 and 7; loss.py).

    python -m training.train_dpo --config training/configs/mini_dpo.yaml [--lr 3e-4] [--resume]
    accelerate launch --multi_gpu --num_processes 8 -m training.train_dpo --config ...

(`--multi_gpu` also starts several processes on a machine without a GPU; `--cpu` starts one.)

The base is frozen and in eval(); the reference is the same weights with the adapter off; chosen
and rejected pictures go through the network in one batch (pair_model.py). With `reference: cached`
its errors were computed beforehand, once for all runs of a sweep (reference_errors.py). What a
step draws (rows, noise, times, dropped users) is a pure function of (seed, step), over the whole
batch of all processes (randomness.py), so a resumed run, another number of processes or a smaller
micro batch draws the same. A resumed run ends with the bits of an uninterrupted one, or is refused
(run_state.py).

Diffusion-DPO, the paper's baseline without users, trains the same added attention layers ("the
same architecture as our model, optimizing only the added cross-attention layers"; 5.1). They need
something to read: everybody gets one constant embedding, all ones, which is no person's. The
projector then makes of it M freely learned tokens, the same for all, so that W'_k and W'_v have
all the capacity they have under PPD, and nothing they do can depend on a person. The artifact says
so: `personal: false`, `user: none`, and its encoder id fits no user encoder.

Legend: B pairs, R rows of the data, C H W latent, D embedding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available, is_wandb_available
from safetensors.torch import save_file
from torch import Tensor

from ppd_model.files.artifact import load_artifact, load_strict, save_artifact
from ppd_model.nets.adapter import trainable_parameters
from ppd_model.nets.stage_c import adapter_spec
from training.data.dataset import PairBatch, PreferencePairs, batch_rows, epoch_of, load_pairs
from training.dpo.base_weights import load_base
from training.dpo.dpo_config import DpoConfig
from training.dpo.learned_people import PEOPLE, PEOPLE_FILE, learned_people
from training.dpo.loss import PairErrors
from training.dpo.objectives import objective
from training.dpo.pair_model import PairModel
from training.dpo.randomness import Draws, draw, draw_of_pairs
from training.dpo.run_log import RunLog
from training.dpo.run_state import CHECKPOINT, RunState, identity_of
from training.dpo.sample_grid import SampleGrid
from training.dpo.time_weight import Omega
from training.dpo.validation import validate
from training.jobs.ahead import done_ahead
from training.jobs.command_line import run_job
from training.jobs.configuration import save_resolved
from training.jobs.files import replacing
from training.jobs.stopping import Stop, end, watched
from training.reference_errors import ReferenceErrors, load_reference_errors

ADAPTER = "adapter.safetensors"
ADAPTERS = "adapters/step-{:06d}.safetensors"
SAMPLES = "samples"
TRACKERS = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}
CENTRED = {"vlm", "taste", "posterior", "given"}
"""One-hot vectors are not centred: all mixtures of users, the even one too, are some user."""
OF_ENCODER = {"vlm", "given"}
"""Embeddings of an encoder, which the adapter names."""


def train(config: DpoConfig, resume: bool = False) -> Path:
    """Train and export; returns the adapter's path.

    Raises ValueError or ArtifactError for data or weights that do not fit, for a folder that holds
    another run unless `resume`, and for a run to resume that differs; FileNotFoundError when there
    is none to resume; FloatingPointError when a loss is not finite.
    """
    accelerator = make_accelerator(config)
    pairs = read_pairs(config)
    train_rows, validation_rows = split_rows(pairs, config)
    config = config.with_steps(len(train_rows))
    parts = list(micro_batches(accelerator, config))
    model, base_sha256 = make_model(config, pairs, accelerator.device)
    stage_c, adapter = model.stage_c, model.stage_c.adapter
    if config.user == "learned":
        pairs = learned_people(adapter, pairs, config.seed)
    state = RunState(
        adapter,
        make_optimizer(config, model),
        {key: value.clone() for key, value in adapter.state_dict().items()},
        Omega(config.omega),
    )
    identity = identity_of(config, accelerator, base_sha256)
    kept = None
    if config.reference == "cached":
        latent_CHW = pairs.latent_NCHW.shape[1:]
        kept = load_reference_errors(config, base_sha256, latent_CHW, accelerator.device)
        identity["reference errors"] = kept.sha256
    first = start(config, state, identity, resume)
    if first > config.total_steps:
        raise ValueError(f"the run is at step {first} already; steps is {config.total_steps}")
    wrapped, state.optimizer = accelerator.prepare(model, state.optimizer)
    if accelerator.is_main_process:
        save_resolved(config, config.output_dir)
    users_ED = pairs.batch(
        validation_rows[spread(len(validation_rows), config.sample_people)],
        torch.zeros(min(config.sample_people, len(validation_rows))),
    ).user_emb_BD
    grid = SampleGrid.load(config, stage_c, users_ED) if accelerator.is_main_process else None
    log = RunLog(config, accelerator, first)
    log.say(
        f"{config.objective}: {len(train_rows)} pairs, {config.total_steps} steps of "
        f"{config.batch} ({accelerator.num_processes} x {len(parts)} x "
        f"{parts[0].stop - parts[0].start}); {len(validation_rows)} pairs for validation; "
        f"{sum(p.numel() for p in trainable_parameters(model)):,} trainable of "
        f"{sum(p.numel() for p in model.parameters()):,} parameters; "
        + (f"resumed at step {first}; " if first else "")
        + ("no sample grids (no decoder)" if config.decoder is None else "sample grids")
    )

    def prepared(step: int) -> Prepared:
        return prepare(pairs, train_rows, parts, step, config, kept)

    steps = range(first, config.total_steps)
    # The next step's data are read and drawn while this one is computed, but for what it changes.
    ahead = config.user != "learned"
    data_of = done_ahead(prepared, steps, workers=1, ahead=1) if ahead else map(prepared, steps)
    with watched() as stop:
        for step, data in zip(steps, data_of, strict=True):
            for group in state.optimizer.param_groups:
                group["lr"] = config.lr_at(step)
            measured = optimizer_step(accelerator, wrapped, state, data, step, config)
            state.update_average(config.ema_decay)
            done, last = step + 1, step + 1 == config.total_steps
            asked = asked_to_stop(accelerator, stop)
            record = {"step": done, "lr": config.lr_at(step), **measured}
            if done % config.validate_every == 0 or last:
                with exported_weights(state, config):
                    record |= validate(
                        accelerator, model, state.omega, pairs, validation_rows, config
                    )
            log.step(record)
            if grid is not None and (done % config.sample_every == 0 or last):
                with exported_weights(state, config):
                    log.grid(grid.save(config.output_dir / SAMPLES, done), done)
            if accelerator.is_main_process:
                if config.adapter_every is not None and done % config.adapter_every == 0:
                    export(config, state, pairs, identity, ADAPTERS.format(done), done)
                if done % config.checkpoint_every == 0 or last or asked:
                    state.save(config.output_dir, done, identity)
            if asked and not last:
                log.close()
                end(asked, f"step {done} of {config.total_steps} is kept; --resume goes on")

    accelerator.wait_for_everyone()
    path = config.output_dir / ADAPTER
    if accelerator.is_main_process:
        digest = export(config, state, pairs, identity, ADAPTER, config.total_steps)
        log.say(f"{path} sha256 {digest}")
    log.close()
    return path


def asked_to_stop(accelerator: Accelerator, stop: Stop) -> int:
    """The signal that any of the processes was sent, or 0; all return one at the same step."""
    if accelerator.num_processes == 1:
        return stop.signal or 0
    asked = torch.tensor([float(stop.signal or 0)], device=accelerator.device)
    return int(accelerator.gather(asked).max())


def make_accelerator(config: DpoConfig) -> Accelerator:
    """accelerate's loop with the trackers asked for.

    Several processes without a GPU meet over gloo. Raises ValueError when a tracker is not
    installed: accelerate itself would go on without it.
    """
    missing = [name for name in config.trackers if not TRACKERS[name]()]
    if missing:
        raise ValueError(f"not installed: {', '.join(missing)}; install it or set trackers to []")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no",  # base_dtype says which part has which precision
        log_with=list(config.trackers) or None,
        project_dir=str(config.output_dir),
    )


def read_pairs(config: DpoConfig) -> PreferencePairs:
    """The precomputed pairs; without users, everybody's embedding is the constant one.

    Raises ValueError for embeddings that are not in the data.
    """
    if config.user == "given":
        raise ValueError("user is 'given': who gives the embeddings? See training.rivals")
    pairs = load_pairs(config.data_dir, config.user, config.trained_preset.user_emb_dim)
    if config.user == "none":
        pairs = replace(pairs, user_emb_ED=torch.ones_like(pairs.user_emb_ED))
    return pairs


def split_rows(pairs: PreferencePairs, config: DpoConfig) -> tuple[Tensor, Tensor]:
    """Rows to train on, and rows to validate on.

    With `validation_people` the last people of the data are held out; with 0 it is the data's own
    validation split (known people, other captions).
    """
    training = pairs.rows_in("train")
    if config.validation_people == 0:
        held_out = pairs.rows_in("validation")
    elif 2 <= config.validation_people < pairs.people:
        border = pairs.people - config.validation_people
        held_out = pairs.rows_of(range(border, pairs.people))
        training = training[pairs.person_P[training] < border]
    else:
        raise ValueError(
            f"validation_people is {config.validation_people}; the data hold {pairs.people} people"
        )
    if config.only_person is not None:
        training = training[pairs.person_P[training] == config.only_person]
        held_out = held_out[pairs.person_P[held_out] == config.only_person]
    if not len(held_out):
        raise ValueError(
            f"no pairs to validate on: validation_people is {config.validation_people}"
        )
    return training, held_out[spread(len(held_out), config.validation_pairs)]


def spread(rows: int, wanted: int) -> Tensor:
    """`wanted` of that many row numbers, evenly; all of them where there are fewer."""
    return torch.linspace(0, rows - 1, min(wanted, rows)).long()


def make_model(
    config: DpoConfig, pairs: PreferencePairs, device: torch.device
) -> tuple[PairModel, str]:
    """The base of the file with a fresh adapter, or `init_adapter`, and the base's sha256.

    Raises ArtifactError for an adapter of another base, other embeddings or another size.
    """
    torch.manual_seed(config.seed)
    stage_c, digest = load_base(config.trained_preset, config.stage_c, config.dtype, device)
    if config.centre_users and config.user in CENTRED:
        stage_c.adapter.projector.center_on(pairs.user_emb_ED)
    if config.init_adapter is not None:
        tensors, _ = load_artifact(
            config.init_adapter,
            kind="adapter",
            base_model=config.trained_preset.base_model,
            encoder_id=encoder_id_of(config, pairs),
        )
        load_strict(stage_c.adapter, tensors)
    model = PairModel(
        stage_c.train(),
        reduction=config.reduction,
        gradient_checkpointing=config.gradient_checkpointing,
        compile_blocks=config.compile_blocks,
    )
    return model, digest


def make_optimizer(config: DpoConfig, model: PairModel) -> torch.optim.Optimizer:
    """AdamW over the adapter, all of it in one kernel where the device has one."""
    parameters = trainable_parameters(model)
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused
    )


def start(config: DpoConfig, state: RunState, identity: dict[str, object], resume: bool) -> int:
    """The first step: 0 for a new run, else the checkpoint's.

    Raises ValueError for a folder that holds a run when `resume` is off, FileNotFoundError for
    one that does not when it is on, and ValueError when that run was another.
    """
    if resume:
        return state.restore(config, identity)
    path = config.output_dir / CHECKPOINT
    if path.exists():
        raise ValueError(f"{path} exists: pass --resume to continue it or choose another folder")
    return 0


def micro_batches(accelerator: Accelerator, config: DpoConfig) -> Iterator[slice]:
    """This process's equal parts of the batch. Raises ValueError when they do not divide it."""
    size = config.micro_batch or config.batch // accelerator.num_processes
    if size < 1 or config.batch % (size * accelerator.num_processes):
        raise ValueError(
            f"batch {config.batch} is not a multiple of micro_batch {size} times "
            f"{accelerator.num_processes} processes"
        )
    share = config.batch // accelerator.num_processes
    begin = share * accelerator.process_index
    for offset in range(begin, begin + share, size):
        yield slice(offset, offset + size)


@dataclass(frozen=True)
class Prepared:
    """The data of a step: the draws of the whole batch, and of this process's parts the pairs,
    their draws and, where they are kept, the reference's errors."""

    draws: Draws
    parts: list[tuple[PairBatch, Draws, PairErrors | None]]


def prepare(
    pairs: PreferencePairs,
    rows_R: Tensor,
    parts: Sequence[slice],
    step: int,
    config: DpoConfig,
    kept: ReferenceErrors | None = None,
) -> Prepared:
    """Read and draw what a step needs, on the CPU: a function of its arguments alone."""
    rows_B = batch_rows(rows_R, config.batch, step, config.seed)
    latent_CHW = pairs.latent_NCHW.shape[1:]
    if kept is None:
        draws = draw(config.batch, latent_CHW, config.seed, step, config)
    else:
        number = epoch_of(len(rows_R), config.batch, step)[0] % config.draws_per_pair
        draws = draw_of_pairs(rows_B, number, latent_CHW, config.seed, step, config)
    found = []
    for part in parts:
        local = draws.rows(part)
        batch = pairs.batch(rows_B[part], local.which_embedding_B)
        known = None if kept is None else kept.of(rows_B[part], number, config.reduction)
        found.append((batch, local, known))
    return Prepared(draws, found)


def optimizer_step(
    accelerator: Accelerator,
    model: torch.nn.Module,
    state: RunState,
    data: Prepared,
    step: int,
    config: DpoConfig,
) -> dict[str, float]:
    """One step on one batch, in micro batches; returns means over all processes for the log."""
    device, parts = accelerator.device, data.parts
    sums: dict[str, Tensor] = {}
    errors: list[Tensor] = []
    state.optimizer.zero_grad()
    for number, (batch, local, known) in enumerate(parts, start=1):
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            loss, error_K2 = objective(
                model,
                batch.to(device),
                local.to(device),
                state.omega,
                config,
                None if known is None else known.to(device),
            )
            accelerator.backward(loss.loss / len(parts))
        for name, value in loss.scalars().items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value / len(parts)
        errors.append(error_K2)
    norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
    means_N = accelerator.reduce(torch.stack(list(sums.values())), reduction="mean")
    measured = dict(zip(sums, means_N.tolist(), strict=True))
    measured["grad_norm"] = float(norm)
    if not torch.isfinite(torch.tensor([measured["loss"], measured["grad_norm"]])).all():
        raise FloatingPointError(
            f"step {step}: loss {measured['loss']}, gradient norm {measured['grad_norm']}"
        )
    state.optimizer.step()
    if config.omega == "adaptive":
        time_K2 = torch.stack([data.draws.t_chosen_B, data.draws.t_rejected_B], dim=1)
        error_all_K2 = accelerator.gather(torch.cat(errors)).cpu()
        state.omega.update(time_K2[:, : error_all_K2.shape[1]].flatten(), error_all_K2.flatten())
    return measured


@contextmanager
def exported_weights(state: RunState, config: DpoConfig) -> Iterator[None]:
    """Within it the adapter holds the weights that would be exported now, not yet scaled."""
    if config.ema_decay == 0:
        yield
        return
    live = {key: value.clone() for key, value in state.adapter.state_dict().items()}
    state.adapter.load_state_dict(state.average)
    try:
        yield
    finally:
        state.adapter.load_state_dict(live)


def encoder_id_of(config: DpoConfig, pairs: PreferencePairs) -> str:
    """Whose embeddings the adapter reads: an encoder's by its id, else what stands for people."""
    return str(pairs.provenance["encoder_id"]) if config.user in OF_ENCODER else config.user


def export(
    config: DpoConfig,
    state: RunState,
    pairs: PreferencePairs,
    identity: dict[str, object],
    name: str,
    steps: int,
) -> str:
    """Write the adapter as it is after so many steps, W'_v scaled by ``export_strength``.

    Vectors that were learned for people go into a file beside it. Returns the adapter's sha256.
    """
    begun = identity["init adapter"]
    spec = adapter_spec(
        config.trained_preset,
        encoder_id=encoder_id_of(config, pairs),
        personal="false" if config.user == "none" else "true",
        user=config.user,
        objective=config.objective,
        steps=str(steps),
        batch=str(config.batch),
        lr=str(config.lr),
        beta=str(config.beta),
        timesteps=str(config.timesteps),
        reduction=config.reduction,
        omega=config.omega,
        seed=str(config.seed),
        export_strength=str(config.export_strength),
        base_sha256=str(identity["base weights"]),
        data_sha256=str(identity["data"]),
        **({} if begun is None else {"init_adapter_sha256": str(begun)}),
    )
    trained = dict(state.average if config.ema_decay > 0 else state.adapter.state_dict())
    if PEOPLE in trained:
        with replacing(config.output_dir / PEOPLE_FILE) as unfinished:
            save_file({PEOPLE: trained.pop(PEOPLE).contiguous()}, unfinished)
    tensors = {
        key: value * config.export_strength if key.startswith("to_v.") else value
        for key, value in trained.items()
    }
    return save_artifact(config.output_dir / name, tensors, spec)


if __name__ == "__main__":
    run_job(train, DpoConfig, __doc__)
