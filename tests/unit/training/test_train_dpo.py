"""The adapter's training loop on random weights and random pairs."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from ppd_model.files.artifact import (
    ArtifactError,
    ArtifactSpec,
    load_artifact,
    save_artifact,
    sha256_of,
)
from ppd_model.nets.diffusion import LATEST_TIME, alpha_bar
from ppd_model.nets.stage_c import load_adapter, load_stage_c
from tests.tiny_training import (
    PAIRS_EACH,
    PEOPLE,
    PRESET,
    load_tiny_pairs,
    log_of,
    ranks,
    start_process,
    tiny_config,
    tiny_parts,
    write_world,
)
from training import train_dpo
from training.dpo.dpo_config import DpoConfig
from training.dpo.randomness import draw
from training.dpo.run_state import RunState
from training.train_dpo import split_rows, train

TIMINGS = {"pairs_per_s"}
WITHOUT_USER: dict[str, object] = {
    "objective": "diffusion_dpo",
    "user": "none",
    "user_dropout": 0.0,
}


@pytest.fixture(autouse=True)
def _tiny() -> Iterator[None]:
    with tiny_parts():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def numbers_of(output_dir: Path) -> list[dict[str, float]]:
    return [
        {key: value for key, value in record.items() if key not in TIMINGS}
        for record in log_of(output_dir)
    ]


def assert_equal_bits(one: object, other: object) -> None:
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert one.equal(other)
    elif isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_equal_bits(value, other[key])
    else:
        assert one == other


def test_the_first_step_costs_log_two(world: Path, tmp_path: Path) -> None:
    train(tiny_config(world, tmp_path))
    first = log_of(tmp_path)[0]
    # the adapter adds zero, so policy and reference differ by float32's rounding, times beta * T
    rounding = 0.5 * 1000 * 2**-24
    assert first["margin"] == pytest.approx(0, abs=rounding)
    assert first["loss"] == pytest.approx(math.log(2), abs=rounding / 2)
    assert first["grad_norm"] > 0
    assert {"margin", "chosen_error", "rejected_error"} <= first.keys()


def test_every_step_is_logged_however_few_lines_are_printed(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_config(world, tmp_path, steps=5, log_every=100, validate_every=100))
    assert [record["step"] for record in log_of(tmp_path)] == [1, 2, 3, 4, 5]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed if line.startswith("step")] == ["1/5", "5/5"]
    assert "no sample grids" in printed[0]


def test_a_terminal_gets_a_bar_with_pairs_and_time_left(
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(tiny_config(world, tmp_path, validate_every=100))
    out, bar = capsys.readouterr()
    assert "12/12" in bar
    assert "pairs/s" in bar
    assert "loss" in bar
    assert "step 3/3" in out
    assert "step 1/3" not in out


@pytest.mark.parametrize(
    "objective",
    [{}, WITHOUT_USER, {"objective": "sft"}, {"objective": "mapo"}, {"objective": "dspo"}],
)
def test_exactly_the_adapter_trains(
    world: Path, tmp_path: Path, objective: dict[str, object]
) -> None:
    # three steps: to_k and the projector move once to_v is no longer zero
    config = tiny_config(world, tmp_path, lr=1e-2, lr_schedule="constant", **objective)
    model, _ = train_dpo.make_model(config, train_dpo.read_pairs(config), torch.device("cpu"))
    fresh = model.stage_c.adapter.state_dict()
    trained, _ = load_artifact(train(config), kind="adapter")
    still = {key for key, value in trained.items() if value.equal(fresh[key])}
    assert trained.keys() == fresh.keys()
    assert still == {"projector.center_D"}


@pytest.mark.parametrize(
    "objective",
    [
        {},
        {"objective": "sft"},
        {"objective": "mapo"},
        {"objective": "mapo", "user": "none"},
        {"objective": "dspo", "timesteps": 1},
        {"objective": "dspo", "timesteps": 1, "user": "none"},
    ],
)
def test_training_lowers_its_own_loss(
    world: Path, tmp_path: Path, objective: dict[str, object]
) -> None:
    options: dict[str, object] = dict(
        steps=12, batch=15, lr=5e-2, lr_schedule="constant", beta=0.05, user_dropout=0.0
    )
    options |= dict(validate_every=100, checkpoint_every=100) | objective
    train(tiny_config(world, tmp_path, **options))
    losses = [record["loss"] for record in log_of(tmp_path)]
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def test_without_users_the_artifact_says_it_is_nobodys(world: Path, tmp_path: Path) -> None:
    path = train(tiny_config(world, tmp_path, **WITHOUT_USER))
    _, spec = load_artifact(path, kind="adapter")
    assert (spec.extra["personal"], spec.extra["user"]) == ("false", "none")
    stage_c = load_stage_c(PRESET, world / "stage_c.safetensors")
    with pytest.raises(ArtifactError, match="none"):
        load_adapter(stage_c, PRESET, path, encoder_id="random")
    assert "validation_swapped_accuracy" not in log_of(tmp_path)[-1]


def test_the_artifact_names_what_it_was_trained_for(world: Path, tmp_path: Path) -> None:
    path = train(tiny_config(world, tmp_path))
    stage_c = load_stage_c(PRESET, world / "stage_c.safetensors")
    spec = load_adapter(stage_c, PRESET, path, encoder_id="random")
    assert spec.base_model == PRESET.base_model
    assert spec.extra["personal"] == "true"
    with pytest.raises(ArtifactError, match="random"):
        load_adapter(stage_c, PRESET, path, encoder_id="another")
    resolved = json.loads((tmp_path / "resolved.json").read_text())
    assert resolved["config"]["beta"] == 0.5
    assert resolved["commit"]


def test_an_adapter_may_have_another_number_of_user_tokens(world: Path, tmp_path: Path) -> None:
    path = train(tiny_config(world, tmp_path, user_tokens=3))
    tensors, spec = load_artifact(path, kind="adapter")
    assert spec.config["user_tokens"] == 3
    assert tensors["projector.to_tokens.weight"].shape == (3 * 16, 12)
    stage_c = load_stage_c(PRESET, world / "stage_c.safetensors")
    load_adapter(stage_c, PRESET, path)
    assert stage_c.adapter.projector.tokens == 3
    emb_BD, text_BSD, pooled_B1D = (
        torch.randn(1, 12),
        torch.randn(1, 7, 128),
        torch.randn(1, 1, 128),
    )
    attended = stage_c.attend(text_BSD, pooled_B1D, emb_BD)
    assert attended.user is not None
    assert {block.key.shape[2] for block in attended.user.blocks} == {3}
    # One of the preset's own number takes its place again.
    load_adapter(stage_c, PRESET, train(tiny_config(world, tmp_path / "four")))
    assert stage_c.adapter.projector.tokens == PRESET.user_tokens
    with pytest.raises(ValueError, match=r"user_tokens\s+Input should be greater"):
        train(tiny_config(world, tmp_path / "one", user_tokens=1))


def test_a_finished_run_is_exported_at_another_strength(world: Path, tmp_path: Path) -> None:
    plain = load_artifact(train(tiny_config(world, tmp_path)), kind="adapter")[0]
    stronger = tiny_config(world, tmp_path, export_strength=2.0)
    tensors, spec = load_artifact(train(stronger, resume=True), kind="adapter")
    assert spec.extra["export_strength"] == "2.0"
    assert any(key.startswith("to_v.") and value.any() for key, value in tensors.items())
    for key, value in tensors.items():
        assert torch.equal(value, plain[key] * (2 if key.startswith("to_v.") else 1)), key


LONG: dict[str, object] = dict(
    steps=14,
    batch=4,
    micro_batch=2,
    checkpoint_every=4,
    validate_every=5,
    ema_decay=0.9,
    omega="adaptive",
    beta=0.01,
    user_dropout=0.3,
    shared_noise=False,
    shared_timestep=False,
)


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    run = tiny_config(world, tmp_path_factory.mktemp("whole"), **LONG)
    uninterrupted = start_process(run)
    uninterrupted.join()
    assert uninterrupted.exitcode == 0
    return run.output_dir


def assert_resumed_is(whole: Path, broken: DpoConfig) -> None:
    resumed = start_process(broken, resume=True)
    resumed.join()
    assert resumed.exitcode == 0
    files = [folder / "adapter.safetensors" for folder in (whole, broken.output_dir)]
    assert sha256_of(files[0]) == sha256_of(files[1])
    states = [torch.load(folder / "checkpoint.pt") for folder in (whole, broken.output_dir)]
    assert_equal_bits(*states)
    assert numbers_of(whole) == numbers_of(broken.output_dir)


@pytest.mark.parametrize(
    ("sent", "status", "kept"),
    [
        (signal.SIGKILL, -signal.SIGKILL, None),
        (signal.SIGTERM, 143, "at the step it was at"),
        (signal.SIGINT, 130, "at the step it was at"),
    ],
)
def test_a_run_stopped_and_resumed_leaves_the_files_of_an_uninterrupted_one(
    world: Path, whole: Path, tmp_path: Path, sent: signal.Signals, status: int, kept: str | None
) -> None:
    broken = tiny_config(world, tmp_path / "broken", **LONG)
    stopped = start_process(broken)
    log = broken.output_dir / "log.jsonl"
    while not log.exists() or log.read_text().count("\n") < 6:
        assert stopped.is_alive(), "it ended before it could be stopped"
        time.sleep(0.002)
    assert stopped.pid is not None
    os.kill(stopped.pid, sent)
    stopped.join()
    assert stopped.exitcode == status
    assert not (broken.output_dir / "adapter.safetensors").exists()
    if kept:
        done = torch.load(broken.output_dir / "checkpoint.pt")["step"]
        assert done == len(log_of(broken.output_dir))
    assert_resumed_is(whole, broken)


def train_until_the_disk_is_full(config: DpoConfig, resume: bool) -> None:
    """From step 8 on no file may grow beyond a thousand bytes."""
    save = RunState.save

    def save_on_a_full_disk(self: RunState, folder: Path, step: int, identity: Any) -> None:
        if step == 8:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        save(self, folder, step, identity)

    with patch.object(RunState, "save", save_on_a_full_disk):
        try:
            train(config, resume)
        except OSError as error:
            sys.exit(2 if "checkpoint.pt could not be written" in str(error) else 3)


def test_a_disk_that_is_full_costs_no_checkpoint(world: Path, whole: Path, tmp_path: Path) -> None:
    broken = tiny_config(world, tmp_path, **LONG)
    stopped = start_process(broken, job=train_until_the_disk_is_full)
    stopped.join()
    assert stopped.exitcode == 2
    assert torch.load(tmp_path / "checkpoint.pt")["step"] == 4
    assert not (tmp_path / "checkpoint.pt.tmp").exists()
    assert_resumed_is(whole, broken)


def test_a_run_of_constant_rate_can_be_made_longer_and_keeps_adapters_on_its_way(
    world: Path, tmp_path: Path
) -> None:
    options: dict[str, object] = dict(lr_schedule="constant", ema_decay=0.9, validate_every=100)
    two = train(tiny_config(world, tmp_path / "two", steps=2, **options))
    four = train(tiny_config(world, tmp_path / "four", steps=4, adapter_every=2, **options))
    kept = four.parent / "adapters"
    assert sorted(path.name for path in kept.iterdir()) == [
        "step-000002.safetensors",
        "step-000004.safetensors",
    ]
    assert sha256_of(kept / "step-000002.safetensors") == sha256_of(two)
    assert sha256_of(kept / "step-000004.safetensors") == sha256_of(four)
    longer = tiny_config(world, tmp_path / "two", steps=4, **options)
    assert sha256_of(train(longer, resume=True)) == sha256_of(four)
    with pytest.raises(ValueError, match="at step 4 already; steps is 3"):
        train(longer.model_copy(update={"steps": 3}), resume=True)
    falling = tiny_config(world, tmp_path / "falling", steps=2)
    train(falling)
    with pytest.raises(ValueError, match="only under --lr_schedule constant"):
        train(falling.model_copy(update={"steps": 4}), resume=True)


def test_a_run_begins_with_the_adapter_that_is_given(world: Path, tmp_path: Path) -> None:
    first = train(tiny_config(world, tmp_path / "first"))
    tensors, spec = load_artifact(first, kind="adapter")
    config = tiny_config(world, tmp_path / "second", init_adapter=first)
    model, _ = train_dpo.make_model(config, train_dpo.read_pairs(config), torch.device("cpu"))
    assert_equal_bits(model.stage_c.adapter.state_dict(), tensors)
    _, second = load_artifact(train(config), kind="adapter")
    assert second.extra["init_adapter_sha256"] == sha256_of(first)
    fresh = config.model_copy(update={"init_adapter": None})
    with pytest.raises(ValueError, match="another init adapter"):
        train(fresh, resume=True)
    other = ArtifactSpec(spec.kind, spec.config, spec.base_model, {"encoder_id": "another"})
    save_artifact(first, tensors, other)
    with pytest.raises(ArtifactError, match="another"):
        train(config.model_copy(update={"output_dir": tmp_path / "third"}))


def test_another_run_is_not_continued(world: Path, tmp_path: Path) -> None:
    run = tiny_config(world, tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        train(run, resume=True)
    train(run)
    with pytest.raises(ValueError, match="--resume"):
        train(run)
    with pytest.raises(ValueError, match=r"another beta \(0.5 there, 0.7 now\)"):
        train(run.model_copy(update={"beta": 0.7}), resume=True)
    with pytest.raises(ValueError, match="another shared_timestep"):
        train(run.model_copy(update={"shared_timestep": False}), resume=True)
    path = run.output_dir / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a checkpoint"):
        train(run, resume=True)


def test_other_data_other_weights_or_another_machine_are_not_continued(
    world: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    write_world(own)
    run = tiny_config(own, tmp_path / "run")
    train(run)
    checkpoint = torch.load(run.output_dir / "checkpoint.pt")
    checkpoint["identity"]["processes"] = 8
    torch.save(checkpoint, run.output_dir / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"processes \(8 there, 1 now\); --resume_elsewhere"):
        train(run, resume=True)
    train(run.model_copy(update={"resume_elsewhere": True}), resume=True)
    (own / "pairs" / "manifest.json").write_text("{ }")
    with pytest.raises(ValueError, match="another data"):
        train(run.model_copy(update={"resume_elsewhere": True}), resume=True)


def test_micro_batches_take_the_same_steps(world: Path, tmp_path: Path) -> None:
    options: dict[str, object] = {"omega": "adaptive", "beta": 0.05}
    train(tiny_config(world, tmp_path / "one", **options))
    train(tiny_config(world, tmp_path / "two", micro_batch=2, **options))
    for one, two in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        for name in ("loss", "margin", "chosen_error", "rejected_error", "grad_norm"):
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("objective", ["ppd", "nft", "mapo", "dspo"])
def test_two_processes_take_the_steps_of_one(world: Path, tmp_path: Path, objective: str) -> None:
    omega = "adaptive" if objective in ("ppd", "nft") else "constant"
    options: dict[str, object] = dict(objective=objective, steps=4, batch=8, omega=omega, beta=0.05)
    train(tiny_config(world, tmp_path / "one", **options))
    both = [
        start_process(tiny_config(world, tmp_path / "two", **options), environment=environment)
        for environment in ranks(2)
    ]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    one, two = numbers_of(tmp_path / "one"), numbers_of(tmp_path / "two")
    assert [record["step"] for record in two] == [1, 2, 3, 4]
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("change", [{"shared_noise": False}, {"shared_timestep": False}])
def test_a_pair_shares_noise_and_time_unless_asked_otherwise(
    world: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    shape = torch.Size((16, 8, 8))
    shared = draw(4, shape, 0, 0, tiny_config(world, tmp_path))
    apart = draw(4, shape, 0, 0, tiny_config(world, tmp_path, **change))
    assert shared.noise_chosen_BCHW.equal(shared.noise_rejected_BCHW)
    assert shared.t_chosen_B.equal(shared.t_rejected_B)
    same_noise = apart.noise_chosen_BCHW.equal(apart.noise_rejected_BCHW)
    same_time = apart.t_chosen_B.equal(apart.t_rejected_B)
    assert (same_noise, same_time) == ("shared_noise" not in change, "shared_noise" in change)


def test_draws_are_a_function_of_seed_and_step(world: Path, tmp_path: Path) -> None:
    shape, config = torch.Size((16, 8, 8)), tiny_config(world, tmp_path)
    once = draw(4, shape, 0, 0, config)
    for name, value in vars(draw(4, shape, 0, 0, config)).items():
        assert value.equal(getattr(once, name))
    for seed, step in ((0, 1), (1, 0)):
        other = draw(4, shape, seed, step, config)
        assert not other.t_chosen_B.equal(once.t_chosen_B)
        assert not other.noise_chosen_BCHW.equal(once.noise_chosen_BCHW)


def test_times_fill_the_range_that_was_asked_for(world: Path, tmp_path: Path) -> None:
    config = tiny_config(world, tmp_path, min_time=0.6, max_time=0.9)
    t_B = draw(4000, torch.Size((1, 1, 1)), 0, 0, config).t_chosen_B
    assert float(t_B.min()) == pytest.approx(0.6, abs=0.001)
    assert float(t_B.max()) == pytest.approx(0.9, abs=0.001)
    assert float(t_B.mean()) == pytest.approx(0.75, abs=0.01)
    crowded = config.model_copy(update={"time_power": 3.0})
    # E[u^3] = 1/4: the mean lies a quarter of the range below the top.
    t_B = draw(4000, torch.Size((1, 1, 1)), 0, 0, crowded).t_chosen_B
    assert float(t_B.mean()) == pytest.approx(0.825, abs=0.01)
    with pytest.raises(ValueError, match=r"max_time is 0\.5"):
        tiny_config(world, tmp_path, min_time=0.6, max_time=0.5)


def test_the_network_is_told_no_time_beyond_the_clamped_signal_unless_asked_otherwise(
    world: Path, tmp_path: Path
) -> None:
    plain = tiny_config(world, tmp_path)
    clamped = plain.model_copy(update={"snr_times": True})
    t_B, seen_B = (
        draw(4000, torch.Size((1, 1, 1)), 0, 0, config).t_chosen_B for config in (plain, clamped)
    )
    late_B = t_B > LATEST_TIME
    assert 0 < int(late_B.sum()) < 100  # of 4000, .64 % are expected
    assert seen_B.equal(t_B.clamp(max=LATEST_TIME))
    torch.testing.assert_close(alpha_bar(seen_B), alpha_bar(t_B), rtol=1e-3, atol=0)


def test_embeddings_are_centred_unless_asked_otherwise(world: Path, tmp_path: Path) -> None:
    def centre_of(**changes: object) -> torch.Tensor:
        config = tiny_config(world, tmp_path, **changes)
        pairs = train_dpo.read_pairs(config)
        model, _ = train_dpo.make_model(config, pairs, torch.device("cpu"))
        return model.stage_c.adapter.projector.center_D

    assert centre_of().abs().max() > 0
    assert not centre_of(centre_users=False).any()


def test_runs_from_before_an_option_was_there_are_the_same_runs(
    world: Path, tmp_path: Path
) -> None:
    usual = tiny_config(world, tmp_path)
    assert not {"snr_times", "centre_users", "mapo_snr"} & usual.comparable().keys()
    changes: list[dict[str, object]] = [{"snr_times": True}, {"centre_users": False}]
    for change in (*changes, {"objective": "mapo", "mapo_snr": 0.5}):
        assert change.keys() <= tiny_config(world, tmp_path, **change).comparable().keys()


def test_the_learning_rate_warms_up_and_falls(world: Path, tmp_path: Path) -> None:
    run = tiny_config(world, tmp_path, steps=10, warmup_steps=2, lr=1.0)
    rates = [run.lr_at(step) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[-1] == pytest.approx(1 / 8)
    cosine = tiny_config(world, tmp_path, steps=10, lr=1.0, lr_schedule="cosine")
    assert cosine.lr_at(5) == pytest.approx(0.5)


def test_an_epoch_is_the_whole_batches_in_the_training_pairs(world: Path, tmp_path: Path) -> None:
    train(tiny_config(world, tmp_path, steps=None, epochs=1, validate_every=100))
    assert len(log_of(tmp_path)) == (PEOPLE - 2) * (PAIRS_EACH - 1) // 4


def test_held_out_people_are_never_trained_on(world: Path, tmp_path: Path) -> None:
    pairs = load_tiny_pairs(world / "pairs", "vlm", PRESET.user_emb_dim)
    by_people = split_rows(pairs, tiny_config(world, tmp_path))  # type: ignore[arg-type]
    assert [len(rows) for rows in by_people] == [(PEOPLE - 2) * (PAIRS_EACH - 1), 2 * PAIRS_EACH]
    assert int(pairs.person_P[by_people[0]].max()) < int(pairs.person_P[by_people[1]].min())

    config = tiny_config(world, tmp_path, validation_people=0, only_person=3)
    of_one = split_rows(pairs, config)  # type: ignore[arg-type]
    assert [len(rows) for rows in of_one] == [PAIRS_EACH - 1, 1]
    assert pairs.person_P[torch.cat(of_one)].unique().tolist() == [3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, "beta"),
        ({"user_dropout": 1.0}, "user_dropout"),
        ({"micro_batch": 3}, "micro_batch"),
        ({"validation_people": PEOPLE}, "validation_people"),
        ({"batch": 1000}, "do not fill"),
        ({"epochs": 1.0}, "one of the two"),
        ({"steps": None}, "one of the two"),
        ({"steps": None, "epochs": 0.01}, "no batch of 4"),
        ({"objective": "diffusion_dpo"}, "has no user"),
        ({"user": "none"}, "ppd needs users"),
        ({"objective": "nft", "user": "none"}, "nft needs users"),
        ({"objective": "diffusion_dpo", "user": "none"}, "user_dropout"),
        ({"objective": "mapo", "omega": "adaptive"}, "loss of mapo has no weights"),
        ({"objective": "dspo", "omega": "adaptive"}, "loss of dspo has no weights"),
        ({"decoder": Path("folder")}, "sample_prompts"),
        ({"only_person": 7}, "do not fill"),
        ({"only_person": 1}, "no pairs to validate"),
    ],
)
def test_values_that_cannot_train_are_refused(
    world: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny_config(world, tmp_path, **change))
