"""The adapter: Eq. 7 by hand, exactly the base when off, and what trains."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import StableCascadeUNet
from torch import Tensor

from ppd_model.nets.adapter import (
    Adapter,
    AttentionInput,
    KeyValue,
    attention_blocks,
    decoupled_attention,
    install,
    trainable_parameters,
)
from ppd_model.nets.stage_c import StageC, build_stage_c, build_unet
from ppd_model.presets import Preset, get_preset

SameBits = Callable[[Tensor, Tensor], bool]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def inputs(tiny: Preset) -> Inputs:
    """Noisy latents, times, text tokens and pooled text of three rows."""
    generator = torch.Generator().manual_seed(4)
    return (
        torch.randn(3, 16, 8, 8, generator=generator),
        torch.tensor([0.1, 0.5, 1.0]),
        torch.randn(3, 16, 16, generator=generator),
        torch.randn(3, 1, 24, generator=generator),
    )


@pytest.fixture
def wide_inputs(inputs: Inputs) -> Inputs:
    """In float64: what lies between two correct ways is 2^-53 = 1e-16 of a few units, some hundred
    times over, and 1e-12 covers it on any processor."""
    xt, t, tokens, pooled = (part.double() for part in inputs)
    return xt, t, tokens, pooled


@pytest.fixture(name="user_emb_BD")
def three_users(tiny: Preset) -> Tensor:
    return torch.randn(3, tiny.user_emb_dim, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def stock(tiny: Preset, stage_c: StageC) -> StableCascadeUNet:
    """The base as diffusers makes it, with the same weights."""
    unet = StableCascadeUNet(**tiny.stage_c).eval()
    unet.load_state_dict(stage_c.unet.state_dict(), strict=True)
    return unet


@torch.no_grad()
def stock_noise(stock: StableCascadeUNet, inputs: Inputs) -> Tensor:
    xt, t, tokens, pooled = inputs
    no_image = torch.zeros(len(xt), 1, stock.config.clip_image_in_channels)
    return stock(
        sample=xt,
        timestep_ratio=t,
        clip_text_pooled=pooled,
        clip_text=tokens,
        clip_img=no_image,
    ).sample


def test_equation_7_by_hand() -> None:
    # One head of width 1, one query q = 1. Own keys 0, 0 weigh values 1, 3 equally: 2.
    # User keys 0, ln 3 weigh values 4, 8 by 1/4 and 3/4: 7. At strength 1/2: 2 + 3.5.
    def column(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).view(1, 1, -1, 1)

    own = KeyValue(column(0, 0), column(1, 3))
    user = KeyValue(column(0, math.log(3)), column(4, 8))
    out = decoupled_attention(column(1), own, user, torch.tensor([0.5]))
    torch.testing.assert_close(out, column(5.5))
    torch.testing.assert_close(decoupled_attention(column(1), own, None, None), column(2))


def test_without_a_user_the_output_is_the_stock_models_bit_for_bit(
    stage_c: StageC, stock: StableCascadeUNet, inputs: Inputs, same_bits: SameBits
) -> None:
    assert same_bits(stage_c(*inputs), stock_noise(stock, inputs))


@pytest.mark.parametrize("off", ["disabled", "zero embedding", "strength 0"])
def test_with_the_adapter_off_the_output_is_the_stock_models_bit_for_bit(
    off: str,
    stage_c: StageC,
    stock: StableCascadeUNet,
    inputs: Inputs,
    user_emb_BD: Tensor,
    same_bits: SameBits,
) -> None:
    base = stock_noise(stock, inputs)
    assert not same_bits(stage_c(*inputs, user_emb_BD), base), "the adapter does nothing when on"
    if off == "disabled":
        with stage_c.adapter.disabled():
            output = stage_c(*inputs, user_emb_BD)
    elif off == "zero embedding":
        output = stage_c(*inputs, torch.zeros_like(user_emb_BD))
    else:
        output = stage_c(*inputs, user_emb_BD, torch.zeros(3))
    assert same_bits(output, base)


def test_rows_that_are_off_inside_a_batch_are_the_stock_models_bit_for_bit(
    stage_c: StageC,
    stock: StableCascadeUNet,
    inputs: Inputs,
    user_emb_BD: Tensor,
    same_bits: SameBits,
) -> None:
    user_emb_BD[0] = 0
    output = stage_c(*inputs, user_emb_BD, torch.tensor([1.0, 0.0, 1.0]))
    base = stock_noise(stock, inputs)
    assert [same_bits(output[row], base[row]) for row in range(3)] == [True, True, False]


def test_a_zero_embedding_gives_exactly_zero_tokens(stage_c: StageC, tiny: Preset) -> None:
    tokens_BMD = stage_c.adapter.projector(torch.zeros(2, tiny.user_emb_dim))
    assert tokens_BMD.shape == (2, tiny.user_tokens, tiny.user_token_dim)
    assert not tokens_BMD.any()


def test_what_all_people_share_is_taken_out_and_nobody_stays_zero(
    stage_c: StageC, tiny: Preset, user_emb_BD: Tensor
) -> None:
    projector, user_emb_BD = stage_c.adapter.projector.double(), user_emb_BD.double()
    apart_BMD = projector(user_emb_BD - user_emb_BD.mean(dim=0))
    projector.center_on(user_emb_BD + 50)
    # 50 + x has lost 50 * 2^-53 = 6e-15 of x, and tokens are some tens of x.
    torch.testing.assert_close(projector(user_emb_BD + 50), apart_BMD, rtol=0, atol=1e-12)
    assert (projector(torch.zeros(2, tiny.user_emb_dim).double()) == 0).all()


def test_a_fresh_adapter_is_the_base(tiny: Preset, inputs: Inputs, user_emb_BD: Tensor) -> None:
    fresh = build_stage_c(tiny)
    torch.testing.assert_close(fresh(*inputs, user_emb_BD), fresh(*inputs), rtol=0, atol=0)


def test_strength_scales_the_users_part_row_by_row(
    stage_c: StageC, inputs: Inputs, user_emb_BD: Tensor
) -> None:
    one = stage_c(*inputs, user_emb_BD)
    half = stage_c(*inputs, user_emb_BD, torch.tensor([1.0, 0.5, 0.5]))
    base = stage_c(*inputs)
    torch.testing.assert_close(half[0], one[0])
    for row in (1, 2):
        assert 0 < (half[row] - base[row]).norm() < (one[row] - base[row]).norm()


def test_precomputed_keys_and_values_give_the_same_noise(
    stage_c: StageC, wide_inputs: Inputs, user_emb_BD: Tensor
) -> None:
    stage_c.double()
    xt, t, tokens, pooled = wide_inputs
    for user in (None, user_emb_BD):
        attended = stage_c.attend(tokens, pooled, user, precompute=True)
        cached = stage_c.predict_noise(xt, t, attended)
        torch.testing.assert_close(cached, stage_c(*wide_inputs, user), rtol=0, atol=1e-12)


def test_a_batch_at_mixed_times_equals_its_rows_alone(
    stage_c: StageC, wide_inputs: Inputs, user_emb_BD: Tensor
) -> None:
    stage_c.double()
    together = stage_c(*wide_inputs, user_emb_BD)
    for row in range(3):
        one = slice(row, row + 1)
        alone = stage_c(*(part[one] for part in wide_inputs), user_emb_BD[one])
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-12)


def test_the_first_gradient_reaches_v_and_the_next_reaches_k_and_the_projector(
    tiny: Preset, inputs: Inputs, user_emb_BD: Tensor
) -> None:
    torch.manual_seed(6)
    fresh = build_stage_c(tiny)
    adapter = fresh.adapter
    fresh(*inputs, user_emb_BD).square().mean().backward()
    assert all(weight.grad.abs().max() > 0 for weight in adapter.to_v.parameters())
    assert not any(weight.grad.any() for weight in adapter.to_k.parameters())

    torch.optim.SGD(adapter.parameters(), lr=1.0).step()
    adapter.zero_grad()
    fresh(*inputs, user_emb_BD).square().mean().backward()
    assert all(weight.grad.abs().max() > 0 for weight in adapter.to_k.parameters())
    assert adapter.projector.to_tokens.weight.grad.abs().max() > 0


def test_one_user_token_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2, got 1"):
        Adapter(user_emb_dim=4, token_dim=4, tokens=1, block_dims=[8], block_heads=[2])


def test_exactly_the_adapters_parameters_train(
    stage_c: StageC, inputs: Inputs, user_emb_BD: Tensor
) -> None:
    trainable = {name for name, p in stage_c.named_parameters() if p.requires_grad}
    assert trainable == {f"adapter.{name}" for name, _ in stage_c.adapter.named_parameters()}

    before = {name: value.clone() for name, value in stage_c.state_dict().items()}
    optimizer = torch.optim.AdamW(trainable_parameters(stage_c), lr=1e-3)
    stage_c(*inputs, user_emb_BD).square().mean().backward()
    optimizer.step()
    changed = {n for n, value in stage_c.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == trainable


def test_training_mode_leaves_the_bases_dropout_off(stage_c: StageC, inputs: Inputs) -> None:
    stage_c.train()
    assert not any(module.training for module in stage_c.unet.modules())
    assert torch.equal(stage_c(*inputs), stage_c(*inputs))


def gradients(stage_c: StageC, inputs: Inputs, user_emb_BD: Tensor) -> list[Tensor]:
    """Gradients of one step that runs the reference before it goes backward, as Eq. 6 does."""
    stage_c.zero_grad()
    loss = stage_c(*inputs, user_emb_BD).square().mean()
    with torch.no_grad(), stage_c.adapter.disabled():
        stage_c(*inputs, user_emb_BD)
    loss.backward()
    return [parameter.grad.clone() for parameter in trainable_parameters(stage_c)]


def test_gradient_checkpointing_recomputes_with_the_same_user(
    stage_c: StageC, inputs: Inputs, user_emb_BD: Tensor
) -> None:
    plain = gradients(stage_c, inputs, user_emb_BD)
    stage_c.unet.enable_gradient_checkpointing()
    checkpointed = gradients(stage_c, inputs, user_emb_BD)
    assert all(gradient.abs().max() > 0 for gradient in checkpointed)
    torch.testing.assert_close(checkpointed, plain)


def test_disabled_restores_what_was_before(stage_c: StageC) -> None:
    with stage_c.adapter.disabled(), stage_c.adapter.disabled():
        assert not stage_c.adapter.enabled
    assert stage_c.adapter.enabled
    with pytest.raises(RuntimeError), stage_c.adapter.disabled():
        raise RuntimeError
    assert stage_c.adapter.enabled


def test_installing_keeps_the_names_of_the_weights_and_may_be_repeated(tiny: Preset) -> None:
    stock = StableCascadeUNet(**tiny.stage_c)
    unet = build_unet(tiny)
    install(unet)
    blocks = attention_blocks(unet)
    install(unet)
    assert unet.state_dict().keys() == stock.state_dict().keys()
    assert attention_blocks(unet) == blocks
    assert [block.index for block in blocks] == list(range(6))


@pytest.mark.parametrize(
    ("width", "strength", "message"),
    [(19, 3, r"\(3, 19\).*expects \(B, 20\)"), (20, 2, r"\(2,\) for 3 rows")],
)
def test_an_embedding_or_strength_of_another_shape_is_refused(
    stage_c: StageC, inputs: Inputs, width: int, strength: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stage_c(*inputs, torch.ones(3, width), torch.ones(strength))


def test_the_words_reach_stage_c_although_there_is_no_picture(
    stage_c: StageC, inputs: Inputs
) -> None:
    _, _, tokens, pooled = inputs
    attended = stage_c.attend(tokens, pooled)
    assert isinstance(attended, AttentionInput)
    assert attended.text_BSD.shape[1] == tokens.shape[1] + 4 + 4


@pytest.mark.parametrize(
    ("preset", "attention_weights", "projector_weights", "base_weights"),
    [
        ("stable-cascade-1b", 150_994_944, 22_020_096, 1_030_785_040),
        ("stable-cascade", 536_870_912, 29_360_128, 3_589_103_632),
    ],
)
def test_parameter_counts_of_the_published_sizes(
    preset: str, attention_weights: int, projector_weights: int, base_weights: int
) -> None:
    with torch.device("meta"):
        stage_c = build_stage_c(get_preset(preset))

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    adapter = stage_c.adapter
    assert count(adapter.to_k) + count(adapter.to_v) == attention_weights
    assert count(adapter.projector) == projector_weights
    assert count(stage_c.unet) == base_weights
    assert sum(p.numel() for p in trainable_parameters(stage_c)) == (
        attention_weights + projector_weights
    )
