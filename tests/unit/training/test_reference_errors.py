"""Reference errors computed beforehand: the same loss, the right pairs, or a refusal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ppd_model.files.artifact import sha256_of
from ppd_model.nets.stage_c import load_stage_c
from tests.stopped_jobs import STATUS, stop
from tests.tiny_training import (
    PRESET,
    load_tiny_pairs,
    log_of,
    ranks,
    start_process,
    tiny_config,
    tiny_parts,
    write_world,
)
from training import reference_errors, train_dpo
from training.data.dataset import batch_rows
from training.data.shards import read_manifest
from training.dpo import randomness
from training.dpo.dpo_config import DpoConfig
from training.dpo.pair_model import PairModel, as_pairs
from training.dpo.randomness import Draws, draw_of_pairs
from training.reference_errors import (
    ReferenceErrors,
    errors_of_pairs,
    load_reference_errors,
    write_reference_errors,
)
from training.train_dpo import train

LATENT_CHW = torch.Size((16, 8, 8))
CPU = torch.device("cpu")
EPS = torch.finfo(torch.float32).eps
TRAINING_PAIRS = 40  # 5 of 8 people each; 30 are left when two people are held out
APART: dict[str, object] = {"shared_noise": False, "shared_timestep": False}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(reference_errors, "PAIRS_PER_SHARD", 16)
    with tiny_parts():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def cached_config(world: Path, folder: Path, **changes: object) -> DpoConfig:
    values: dict[str, object] = {"reference": "cached", "reference_dir": folder / "errors"}
    return tiny_config(world, folder / "run", **values | changes)


def load(config: DpoConfig) -> ReferenceErrors:
    return load_reference_errors(config, sha256_of(config.stage_c), LATENT_CHW, CPU)


def losses_of(config: DpoConfig) -> list[dict[str, float]]:
    names = ("loss", "margin", "chosen_error", "rejected_error", "validation_loss")
    log = log_of(config.output_dir)
    return [{name: record[name] for name in names if name in record} for record in log]


def test_every_training_pair_has_its_own_errors_under_each_draw(
    world: Path, tmp_path: Path
) -> None:
    config = cached_config(world, tmp_path, draws_per_pair=3, **APART)
    write_reference_errors(config)
    kept = load(config)
    pairs = load_tiny_pairs(world / "pairs", "none", PRESET.user_emb_dim)
    assert kept.row_R.tolist() == pairs.rows_in("train").tolist()
    assert kept.error_RK2.shape == (TRAINING_PAIRS, 3, 2)

    model = PairModel(load_stage_c(PRESET, world / "stage_c.safetensors"))
    for row, number in ((46, 0), (0, 2), (17 + 1, 1)):
        row_1 = torch.tensor([row])
        drawn = draw_of_pairs(row_1, number, LATENT_CHW, 0, 0, config)
        batch = pairs.batch(row_1, torch.zeros(1))
        expected = as_pairs(model.reference_errors(model.noised(batch, drawn)))
        found = kept.of(row_1, number, "mean")
        assert found.chosen_B.item() == pytest.approx(expected.chosen_B.item(), rel=1e-5)
        assert found.rejected_B.item() == pytest.approx(expected.rejected_B.item(), rel=1e-5)
        summed = kept.of(row_1, number, "sum")
        assert summed.chosen_B.item() == found.chosen_B.item() * LATENT_CHW.numel()
    with pytest.raises(ValueError, match=r"pairs \[47\]: not for training"):
        kept.of(torch.tensor([0, 47]), 0, "mean")


@pytest.mark.parametrize("changes", [{}, APART | {"omega": "adaptive", "reduction": "sum"}])
def test_a_cached_step_costs_what_a_live_step_with_the_same_draws_costs(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    """Over six steps, in which the adapter moves, users are dropped and an epoch ends.

    The base's predictions differ by rounding when other pairs are in the batch: each of the K
    numbers by about eps on its own, their mean by eps / sqrt(K), and beta * T (times K for a sum)
    magnifies that by a hundred here, the least beta of the paper. Three times it is allowed.
    """
    rounding = 100 * EPS / math.sqrt(LATENT_CHW.numel())
    options: dict[str, object] = dict(steps=6, batch=8, draws_per_pair=2, user_dropout=0.3)
    options |= {"beta": 0.1 if not changes else 1e-4} | changes
    cached = cached_config(world, tmp_path, **options)
    write_reference_errors(cached)
    train(cached)

    pairs = load_tiny_pairs(world / "pairs", "vlm", PRESET.user_emb_dim)
    rows_R, _ = train_dpo.split_rows(pairs, cached)  # type: ignore[arg-type]
    own_draw = train_dpo.draw

    def same_draw(
        count: int, latent_CHW: torch.Size, seed: int, step: int, config: DpoConfig
    ) -> Draws:
        if seed != cached.seed:  # validation
            return own_draw(count, latent_CHW, seed, step, config)
        rows_B = batch_rows(rows_R, count, step, seed)
        return draw_of_pairs(rows_B, step // 3 % 2, latent_CHW, seed, step, config)

    monkeypatch.setattr(train_dpo, "draw", same_draw)
    live = cached.model_copy(update={"reference": "live", "output_dir": tmp_path / "live"})
    train(live)
    assert "validation_loss" in losses_of(live)[-1]
    for one, other in zip(losses_of(cached), losses_of(live), strict=True):
        assert one == pytest.approx(other, rel=3 * rounding, abs=3 * rounding)


def test_a_cached_step_does_not_ask_the_base(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cached_config(world, tmp_path, validate_every=100, steps=2)
    write_reference_errors(config)
    monkeypatch.setattr(train_dpo, "validate", lambda *_: {})
    monkeypatch.setattr(PairModel, "reference_errors", lambda *_: pytest.fail("passed the base"))
    train(config)
    assert len(log_of(config.output_dir)) == 2


def test_each_epoch_takes_the_next_draw_of_a_pair(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cached_config(world, tmp_path, draws_per_pair=2, batch=15, steps=5)
    write_reference_errors(config)
    numbers: list[int] = []

    def noted(pair_B: torch.Tensor, number: int, *rest: object) -> Draws:
        numbers.append(number)
        return draw_of_pairs(pair_B, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(train_dpo, "draw_of_pairs", noted)
    train(config)
    assert numbers == [0, 0, 1, 1, 0]


def test_a_pairs_draw_depends_on_nothing_but_the_pair_its_number_and_the_seed(
    world: Path, tmp_path: Path
) -> None:
    config = tiny_config(world, tmp_path, **APART)
    pair_B = torch.tensor([7, 2, 40])
    once = draw_of_pairs(pair_B, 1, LATENT_CHW, 0, 0, config)
    alone = draw_of_pairs(torch.tensor([2]), 1, LATENT_CHW, 5, 9, config)
    kept = ("noise_chosen_BCHW", "noise_rejected_BCHW", "t_chosen_B", "t_rejected_B")
    for name in kept:
        assert getattr(once, name)[1:2].equal(getattr(alone, name)), name
    others = [
        draw_of_pairs(torch.tensor([3]), 1, LATENT_CHW, 0, 0, config),
        draw_of_pairs(torch.tensor([2]), 0, LATENT_CHW, 0, 0, config),
        draw_of_pairs(
            torch.tensor([2]), 1, LATENT_CHW, 0, 0, config.model_copy(update={"draws_seed": 1})
        ),
    ]
    for other in others:
        for name in kept:
            assert not getattr(other, name).equal(getattr(alone, name)), name
    assert not once.noise_chosen_BCHW.equal(once.noise_rejected_BCHW)
    assert not once.t_chosen_B.equal(once.t_rejected_B)
    shared = draw_of_pairs(pair_B, 1, LATENT_CHW, 0, 0, tiny_config(world, tmp_path))
    assert shared.noise_chosen_BCHW.equal(shared.noise_rejected_BCHW)
    assert shared.t_chosen_B.equal(shared.t_rejected_B)


def test_kept_noises_are_normal_and_kept_times_fill_their_range(
    world: Path, tmp_path: Path
) -> None:
    config = tiny_config(world, tmp_path, min_time=0.6, max_time=0.9, user_dropout=0.25)
    drawn = draw_of_pairs(torch.arange(4000), 0, torch.Size((4, 2, 2)), 0, 0, config)
    assert float(drawn.noise_chosen_BCHW.mean()) == pytest.approx(0, abs=0.02)
    assert float(drawn.noise_chosen_BCHW.std()) == pytest.approx(1, abs=0.02)
    assert float(drawn.t_chosen_B.min()) == pytest.approx(0.6, abs=0.001)
    assert float(drawn.t_chosen_B.max()) == pytest.approx(0.9, abs=0.001)
    assert float(drawn.t_chosen_B.mean()) == pytest.approx(0.75, abs=0.01)
    assert float(drawn.keep_user_B.mean()) == pytest.approx(0.75, abs=0.03)
    assert float(drawn.which_embedding_B.mean()) == pytest.approx(0.5, abs=0.02)


def test_an_interrupted_cached_run_ends_with_the_bits_of_an_uninterrupted_one(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, object] = dict(steps=8, draws_per_pair=2, user_dropout=0.3, ema_decay=0.9)
    whole = cached_config(world, tmp_path, **options)
    broken = whole.model_copy(update={"output_dir": tmp_path / "broken"})
    write_reference_errors(whole)
    train(whole)
    with monkeypatch.context() as patched:

        def until_five(*arguments: object) -> dict[str, float]:
            if arguments[4] == 5:
                raise KeyboardInterrupt
            return train_dpo_step(*arguments)  # type: ignore[arg-type]

        train_dpo_step = train_dpo.optimizer_step
        patched.setattr(train_dpo, "optimizer_step", until_five)
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    assert len(log_of(broken.output_dir)) == 5
    train(broken, resume=True)
    files = [run.output_dir / train_dpo.ADAPTER for run in (whole, broken)]
    assert sha256_of(files[0]) == sha256_of(files[1])


@pytest.mark.parametrize("how", STATUS)
def test_errors_that_are_stopped_while_they_are_written_end_with_the_same_bytes(
    world: Path, tmp_path: Path, how: str
) -> None:
    whole = cached_config(world, tmp_path / "whole")
    broken = cached_config(world, tmp_path / "broken")
    write_reference_errors(whole)
    stop(lambda: write_reference_errors(broken), how, 2)
    write_reference_errors(broken, resume=True)
    folders = [tmp_path / name / "errors" for name in ("whole", "broken")]
    manifests = [read_manifest(folder)["shards"] for folder in folders]
    assert len(manifests[0]) == 3
    assert manifests[0] == manifests[1]


def test_a_run_goes_on_with_the_errors_it_began_with(world: Path, tmp_path: Path) -> None:
    config = cached_config(world, tmp_path)
    write_reference_errors(config)
    train(config)
    train(config, resume=True)
    manifest = config.output_dir.parent / "errors" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(ValueError, match="another reference errors"):
        train(config, resume=True)
    live = config.model_copy(update={"reference": "live"})
    with pytest.raises(ValueError, match="another draws_per_pair"):
        train(live, resume=True)


def test_two_processes_write_the_errors_of_one_and_take_its_steps(
    world: Path, tmp_path: Path
) -> None:
    options: dict[str, object] = dict(steps=4, batch=8, omega="adaptive", beta=0.05)
    one = cached_config(world, tmp_path / "one", **options)
    two = cached_config(world, tmp_path / "two", **options)
    write_reference_errors(one)
    train(one)
    for job in (write_reference_errors, train):
        both = [start_process(two, environment=rank, job=job) for rank in ranks(2)]
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == [0, 0]
    # Batches of other sizes are summed in another order, layer by layer: some eps.
    torch.testing.assert_close(load(two).error_RK2, load(one).error_RK2, rtol=16 * EPS, atol=0.0)
    for alone, together in zip(losses_of(one), losses_of(two), strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_what_is_there_and_whole_is_not_computed_again(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cached_config(world, tmp_path)
    folder = write_reference_errors(config)
    digests = json.loads((folder / "manifest.json").read_text())["shards"]
    assert len(digests) == 3
    (folder / "errors-00001.safetensors").unlink()
    with pytest.raises(ValueError, match="--resume"):
        write_reference_errors(config)
    computed: list[torch.Tensor] = []

    def noted(model: PairModel, pairs: object, row_P: torch.Tensor, *rest: object) -> torch.Tensor:
        computed.append(row_P)
        return errors_of_pairs(model, pairs, row_P, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(reference_errors, "errors_of_pairs", noted)
    write_reference_errors(config, resume=True)
    assert [len(row_P) for row_P in computed] == [16]
    assert json.loads((folder / "manifest.json").read_text())["shards"] == digests


@pytest.mark.parametrize(
    "change",
    [
        {"beta": 2.0},
        {"timesteps": 10},
        {"omega": "p2"},
        {"reduction": "sum"},
        {"lr": 0.5},
        {"seed": 9},
        {"user_tokens": 3},
        {"user_dropout": 0.0, "user": "none", "objective": "diffusion_dpo"},
    ],
)
def test_one_folder_serves_all_that_the_base_does_not_depend_on(
    world: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    write_reference_errors(cached_config(world, tmp_path))
    assert len(load(cached_config(world, tmp_path, **change)).row_R) == TRAINING_PAIRS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws_per_pair": 2}, r"another draws_per_pair \(1 there, 2 now\)"),
        ({"draws_seed": 3}, "another draws_seed .0 there, 3 now., first_draw"),
        ({"min_time": 0.5}, "min_time"),
        ({"max_time": 0.5}, "max_time"),
        ({"time_power": 2.0}, "time_power"),
        ({"shared_noise": False}, "shared_noise"),
        ({"shared_timestep": False}, "shared_timestep"),
        ({"base_dtype": "bf16"}, "base_dtype"),
    ],
)
def test_errors_of_other_draws_are_refused_by_name(
    world: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write_reference_errors(cached_config(world, tmp_path))
    other = cached_config(world, tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        train(other)
    with pytest.raises(ValueError, match="made with something else"):
        write_reference_errors(other, resume=True)


def test_errors_of_another_base_of_other_data_or_other_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world(tmp_path)
    config = cached_config(tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"holds no manifest.json; run training.reference_errors"):
        train(config)
    folder = write_reference_errors(config)
    with pytest.raises(ValueError, match="another base weights"):
        load_reference_errors(config, "0" * 64, LATENT_CHW, CPU)
    with pytest.raises(ValueError, match=r"another device \('cpu' there, 'meta' now\)"):
        load_reference_errors(config, sha256_of(config.stage_c), LATENT_CHW, torch.device("meta"))
    with monkeypatch.context() as patched:
        patched.setattr(randomness, "KEPT", (7,))
        with pytest.raises(ValueError, match="another first_draw"):
            load(config)
    data = tmp_path / "pairs" / "manifest.json"
    before = data.read_text()
    data.write_text("{ }")
    with pytest.raises(ValueError, match="another data"):
        load(config)
    data.write_text(before)
    manifest = folder / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"complete": true', '"complete": false'))
    with pytest.raises(ValueError, match="not finished"):
        load(config)
    manifest.write_text(whole)
    (folder / "errors-00001.safetensors").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"errors-00001.*expected"):
        load(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "sft"}, "sft has no reference"),
        ({"objective": "nft"}, "nft needs the reference's predictions"),
        ({"objective": "dspo"}, "dspo needs the reference's predictions"),
        ({"objective": "mapo"}, "mapo has no reference"),
        ({"compile_blocks": True}, "compile_blocks with reference 'cached'"),
        ({"reference_dir": None}, "reference_dir is None"),
        ({"draws_per_pair": 0}, r"draws_per_pair\s+Input should be greater than 0"),
        ({"draws_seed": -1}, r"draws_seed\s+Input should be greater than or equal to 0"),
    ],
)
def test_values_that_no_cache_can_serve_are_refused(
    world: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cached_config(world, tmp_path, **change)


def test_nothing_is_written_for_a_live_reference(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reference is 'live'"):
        write_reference_errors(cached_config(world, tmp_path, reference="live"))
    assert not (tmp_path / "errors").exists()
