"""The shared forward pass against one that shares nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ppd_model.nets.diffusion import add_noise
from ppd_model.nets.stage_c import StageC, load_stage_c
from tests.tiny_training import PRESET, load_tiny_pairs, tiny_config, write_world
from training.data.dataset import PairBatch
from training.dpo.loss import PairErrors, dspo_loss, nft_loss, ppd_loss, sft_loss, squared_error
from training.dpo.pair_model import PairModel
from training.dpo.randomness import Draws, draw

ROWS = 8

# Relative, of a mean squared error: predictions of either batch are sums of some hundred float32
# products a layer (sqrt(100) * 2**-24 each, in tens of layers), and a square doubles it
ROUNDING = 2 * 10 * 10 * 2**-24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def trained_stage_c(world: Path) -> StageC:
    """An adapter that matters."""
    stage_c = load_stage_c(PRESET, world / "stage_c.safetensors").train()
    generator = torch.Generator().manual_seed(1)
    for weight in stage_c.adapter.to_v.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return stage_c


def batch_and_draws(world: Path, **changes: object) -> tuple[PairBatch, Draws]:
    pairs = load_tiny_pairs(world / "pairs", "vlm", PRESET.user_emb_dim)
    config = tiny_config(
        world, world, **{"shared_noise": False, "shared_timestep": False} | changes
    )
    draws = draw(ROWS, pairs.latent_NCHW.shape[1:], 0, 0, config)
    return pairs.batch(torch.arange(ROWS), draws.which_embedding_B), draws


def straightforward(stage_c: StageC, batch: PairBatch, draws: Draws) -> list[PairErrors]:
    """Policy and reference, four passes, every row through the network."""
    emb_BD = batch.user_emb_BD * draws.keep_user_B[:, None]
    chosen = batch.chosen_BCHW, draws.noise_chosen_BCHW, draws.t_chosen_B
    rejected = batch.rejected_BCHW, draws.noise_rejected_BCHW, draws.t_rejected_B

    def errors(x0_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor, user_BD: Tensor | None) -> Tensor:
        xt_BCHW = add_noise(x0_BCHW, noise_BCHW, t_B)
        predicted_BCHW = stage_c(xt_BCHW, t_B, batch.text_BST, batch.pooled_B1T, user_BD)
        return squared_error(noise_BCHW, predicted_BCHW, "mean")

    return [PairErrors(errors(*chosen, user), errors(*rejected, user)) for user in (emb_BD, None)]


def gradient(stage_c: StageC) -> Tensor:
    found = [p.grad for p in stage_c.adapter.parameters() if p.grad is not None]
    assert len(found) == len(list(stage_c.adapter.parameters()))
    return torch.cat([grad.flatten() for grad in found])


def preference_gradient(stage_c: StageC, policy: PairErrors, reference: PairErrors) -> Tensor:
    stage_c.zero_grad()
    ppd_loss(policy, reference, beta=0.01).loss.backward()
    return gradient(stage_c)


@pytest.mark.parametrize("user_dropout", [0.0, 0.5])
def test_errors_and_gradients_are_those_of_the_straightforward_loop(
    world: Path, user_dropout: float
) -> None:
    stage_c = trained_stage_c(world)
    batch, draws = batch_and_draws(world, user_dropout=user_dropout)
    plain = straightforward(stage_c, batch, draws)
    expected = preference_gradient(stage_c, *plain)
    policy, reference = PairModel(stage_c)(batch, draws)
    for mine, theirs in ((policy, plain[0]), (reference, plain[1])):
        torch.testing.assert_close(mine.chosen_B, theirs.chosen_B, rtol=ROUNDING, atol=0.0)
        torch.testing.assert_close(mine.rejected_B, theirs.rejected_B, rtol=ROUNDING, atol=0.0)
    found = preference_gradient(stage_c, policy, reference)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_supervised_errors_are_the_policys_on_chosen_pictures(world: Path) -> None:
    stage_c = trained_stage_c(world)
    batch, draws = batch_and_draws(world, user_dropout=0.5)
    chosen_B = PairModel(stage_c)(batch, draws, chosen_only=True)
    expected_B = straightforward(stage_c, batch, draws)[0].chosen_B
    torch.testing.assert_close(chosen_B, expected_B, rtol=ROUNDING, atol=0.0)


@pytest.mark.parametrize("user_dropout", [0.0, 0.5])
def test_the_opposite_goes_as_far_the_other_way(world: Path, user_dropout: float) -> None:
    stage_c = trained_stage_c(world)
    batch, draws = batch_and_draws(world, user_dropout=user_dropout)
    policy, reference, opposite_B = PairModel(stage_c)(batch, draws, beside="opposite")
    for mine, theirs in zip(
        (policy, reference), straightforward(stage_c, batch, draws), strict=True
    ):
        torch.testing.assert_close(mine.chosen_B, theirs.chosen_B, rtol=ROUNDING, atol=0.0)
        torch.testing.assert_close(mine.rejected_B, theirs.rejected_B, rtol=ROUNDING, atol=0.0)

    noise_BCHW, t_B = draws.noise_rejected_BCHW, draws.t_rejected_B
    seen = add_noise(batch.rejected_BCHW, noise_BCHW, t_B), t_B, batch.text_BST, batch.pooled_B1T
    base_BCHW = stage_c(*seen)
    own_BCHW = stage_c(*seen, batch.user_emb_BD * draws.keep_user_B[:, None])
    other_way_BCHW = base_BCHW - (own_BCHW - base_BCHW)
    expected_B = squared_error(noise_BCHW, other_way_BCHW, "mean")
    torch.testing.assert_close(opposite_B, expected_B, rtol=ROUNDING, atol=0.0)


def test_negative_aware_training_starts_where_preferences_point(world: Path) -> None:
    stage_c = load_stage_c(PRESET, world / "stage_c.safetensors").train()
    model = PairModel(stage_c)
    batch, draws = batch_and_draws(world, user_dropout=0.0)
    dpo = preference_gradient(stage_c, *model(batch, draws))
    stage_c.zero_grad()
    policy, _, opposite_B = model(batch, draws, beside="opposite")
    nft_loss(policy.chosen_B, opposite_B).backward()
    assert torch.cosine_similarity(dpo, gradient(stage_c), dim=0).item() > 0.99999


def test_negative_aware_training_lowers_its_loss(world: Path) -> None:
    stage_c = load_stage_c(PRESET, world / "stage_c.safetensors").train()
    model = PairModel(stage_c)
    batch, draws = batch_and_draws(world, user_dropout=0.0)
    optimizer = torch.optim.AdamW(stage_c.adapter.parameters(), lr=5e-2)
    losses = []
    for _ in range(10):
        policy, _, opposite_B = model(batch, draws, beside="opposite")
        loss = nft_loss(policy.chosen_B, opposite_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("user_dropout", [0.0, 0.5])
def test_the_policys_errors_alone_are_those_beside_the_references(
    world: Path, user_dropout: float
) -> None:
    stage_c = trained_stage_c(world)
    batch, draws = batch_and_draws(world, user_dropout=user_dropout)
    alone = PairModel(stage_c)(batch, draws, policy_only=True)
    expected = straightforward(stage_c, batch, draws)[0]
    torch.testing.assert_close(alone.chosen_B, expected.chosen_B, rtol=ROUNDING, atol=0.0)
    torch.testing.assert_close(alone.rejected_B, expected.rejected_B, rtol=ROUNDING, atol=0.0)


def test_how_far_the_policy_moved_is_measured_on_chosen_pictures(world: Path) -> None:
    stage_c = trained_stage_c(world)
    batch, draws = batch_and_draws(world, user_dropout=0.0)
    policy, reference, moved_B = PairModel(stage_c)(batch, draws, beside="moved")
    for mine, theirs in zip(
        (policy, reference), straightforward(stage_c, batch, draws), strict=True
    ):
        torch.testing.assert_close(mine.chosen_B, theirs.chosen_B, rtol=ROUNDING, atol=0.0)
        torch.testing.assert_close(mine.rejected_B, theirs.rejected_B, rtol=ROUNDING, atol=0.0)
    noise_BCHW, t_B = draws.noise_chosen_BCHW, draws.t_chosen_B
    seen = add_noise(batch.chosen_BCHW, noise_BCHW, t_B), t_B, batch.text_BST, batch.pooled_B1T
    base_BCHW, own_BCHW = stage_c(*seen), stage_c(*seen, batch.user_emb_BD)
    torch.testing.assert_close(
        moved_B, squared_error(base_BCHW, own_BCHW, "mean"), rtol=1e-4, atol=0.0
    )
    # As the loss is written: of predictions, not of their errors.
    beta, timesteps = 0.25, 2
    delta_B = (policy.chosen_B - reference.chosen_B) - (policy.rejected_B - reference.rejected_B)
    c_B = 2 * beta * timesteps * torch.sigmoid(beta * timesteps * delta_B)
    shift_BCHW = c_B.float()[:, None, None, None] * (own_BCHW - base_BCHW)
    expected = ((own_BCHW - noise_BCHW) - shift_BCHW).square().mean()
    found = dspo_loss(policy, reference, moved_B, beta=beta, timesteps=timesteps)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_dspo_starts_as_supervised_training_slowed_down_by_beta(world: Path) -> None:
    # Where policy and reference are one, d |e - c d|^2 = 2 (1 - c) <e, d>, with c = beta T.
    stage_c = load_stage_c(PRESET, world / "stage_c.safetensors").train()
    model = PairModel(stage_c)
    batch, draws = batch_and_draws(world, user_dropout=0.0)
    sft_loss(model(batch, draws, chosen_only=True)).loss.backward()
    supervised = gradient(stage_c)
    stage_c.zero_grad()
    dspo_loss(*model(batch, draws, beside="moved"), beta=0.1, timesteps=2).backward()
    torch.testing.assert_close(gradient(stage_c), 0.8 * supervised, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("dropped", [[0, 3], list(range(ROWS))])
def test_dropped_users_have_the_references_errors_exactly(world: Path, dropped: list[int]) -> None:
    model = PairModel(trained_stage_c(world))
    batch, draws = batch_and_draws(world, user_dropout=0.0)
    draws.keep_user_B[dropped] = 0
    policy, reference = model(batch, draws)
    equal_B = (policy.chosen_B == reference.chosen_B) & (policy.rejected_B == reference.rejected_B)
    assert torch.nonzero(equal_B).flatten().tolist() == dropped
    policy.chosen_B.sum().backward()  # also where nobody is left: other processes wait for it
    assert bool((gradient(model.stage_c) != 0).any()) == (len(dropped) < ROWS)


@pytest.mark.parametrize("user_dropout", [0.0, 0.5])
def test_known_reference_errors_take_the_place_of_its_pass(
    world: Path, user_dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PairModel(trained_stage_c(world))
    batch, draws = batch_and_draws(world, user_dropout=user_dropout)
    assert bool(draws.keep_user_B.all()) == (user_dropout == 0.0)
    live = model(batch, draws)
    expected = preference_gradient(model.stage_c, *live)
    known = PairErrors(live[1].chosen_B.clone(), live[1].rejected_B.clone())
    monkeypatch.setattr(model, "reference_errors", lambda _: pytest.fail("passed the base"))
    cached = model(batch, draws, known)
    losses = [ppd_loss(*errors, beta=0.5).loss.item() for errors in (live, cached)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    found = preference_gradient(model.stage_c, *cached)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("dropped", [[0, 3], list(range(ROWS))])
def test_dropped_users_have_the_known_errors_exactly(world: Path, dropped: list[int]) -> None:
    model = PairModel(trained_stage_c(world))
    batch, draws = batch_and_draws(world, user_dropout=0.0)
    draws.keep_user_B[dropped] = 0
    known = PairErrors(torch.rand(ROWS).double(), torch.rand(ROWS).double())
    policy, reference = model(batch, draws, known)
    assert reference.chosen_B.equal(known.chosen_B)
    assert reference.rejected_B.equal(known.rejected_B)
    equal_B = (policy.chosen_B == known.chosen_B) & (policy.rejected_B == known.rejected_B)
    assert torch.nonzero(equal_B).flatten().tolist() == dropped
    policy.chosen_B.sum().backward()
    assert bool((gradient(model.stage_c) != 0).any()) == (len(dropped) < ROWS)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the tracer's
def test_compiled_blocks_give_the_errors_and_gradients_of_plain_ones(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, draws = batch_and_draws(world)
    stage_c = trained_stage_c(world)
    same = copy.deepcopy(stage_c)
    plain = PairModel(same)(batch, draws)
    expected = preference_gradient(same, *plain)
    compiled: list[str] = []

    def compile_without_code(block: torch.nn.Module, *, dynamic: bool) -> None:
        compiled.append(type(block).__name__)
        block._compiled_call_impl = torch.compile(
            block._call_impl, dynamic=dynamic, backend="aot_eager"
        )

    monkeypatch.setattr(torch.nn.Module, "compile", compile_without_code)
    errors = PairModel(stage_c, compile_blocks=True)(batch, draws)
    blocks = [block for level in stage_c.unet.down_blocks for block in level]
    assert {"SDCascadeResBlock", "SDCascadeTimestepBlock"} == set(compiled)
    assert len(compiled) >= 2 * len(blocks) // 3
    torch.testing.assert_close(errors[0].chosen_B, plain[0].chosen_B, rtol=1e-5, atol=1e-7)
    found = preference_gradient(stage_c, *errors)
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_gradient_checkpointing_changes_no_gradient(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, draws = batch_and_draws(world)
    stage_c = trained_stage_c(world)
    kept = preference_gradient(stage_c, *PairModel(stage_c)(batch, draws))
    model = PairModel(stage_c, gradient_checkpointing=True)
    checkpointed: list[object] = []
    run = stage_c.unet._gradient_checkpointing_func

    def counted(block: object, *inputs: object) -> object:
        checkpointed.append(block)
        return run(block, *inputs)

    monkeypatch.setattr(stage_c.unet, "_gradient_checkpointing_func", counted)
    errors = model(batch, draws)
    assert checkpointed, "no block was checkpointed"
    # another batch passes before backward: what the blocks saw must not have been left on them
    with torch.no_grad():
        model(*batch_and_draws(world, seed=1, time_power=2.0))
    assert preference_gradient(stage_c, *errors).equal(kept)


def test_an_fp32_adapter_trains_under_a_bf16_base(world: Path) -> None:
    stage_c = trained_stage_c(world)
    batch, draws = batch_and_draws(world)
    exact, _ = PairModel(stage_c)(batch, draws)
    torch.nn.Module.to(stage_c.unet, torch.bfloat16)
    model = PairModel(stage_c)
    assert {p.dtype for p in stage_c.unet.parameters()} == {torch.bfloat16}
    policy, reference = model(batch, draws)
    found = preference_gradient(stage_c, policy, reference)
    assert (policy.chosen_B.dtype, found.dtype) == (torch.float64, torch.float32)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(policy.chosen_B, exact.chosen_B, rtol=0.05, atol=0.0)
    assert not policy.chosen_B.equal(exact.chosen_B)
