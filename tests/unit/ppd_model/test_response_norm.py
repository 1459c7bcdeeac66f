"""The fast response norm against diffusers' own, alone and inside a pipeline."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_stable_cascade import GlobalResponseNorm
from torch import nn

from ppd_model.nets.response_norm import FastResponseNorm, use_fast_response_norm
from ppd_model.nets.stage_c import build_stage_c
from ppd_model.pipeline import Pipeline
from ppd_model.presets import Preset
from ppd_model.types import ImageRequest


def a_norm(channels: int) -> GlobalResponseNorm:
    norm = GlobalResponseNorm(channels).requires_grad_(False)
    torch.nn.init.normal_(norm.gamma)
    torch.nn.init.normal_(norm.beta)
    return norm


def kinds(module: nn.Module) -> Counter[type]:
    return Counter(type(m) for m in module.modules() if isinstance(m, GlobalResponseNorm))


def use_stock(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, FastResponseNorm):
            norm.__class__ = GlobalResponseNorm


def test_values_and_gradients_are_the_stock_ones() -> None:
    stock = a_norm(6).double()
    x_BHWK = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    x_BHWK[0, :, :, 2] = 0  # a silent channel: its norm has no slope there
    x_BHWK.requires_grad_()
    grad_BHWK = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    out = stock(x_BHWK)
    expected = out.detach(), *torch.autograd.grad(out, x_BHWK, grad_BHWK)
    use_fast_response_norm(stock)
    assert type(stock) is FastResponseNorm
    out = stock(x_BHWK)
    found = out.detach(), *torch.autograd.grad(out, x_BHWK, grad_BHWK)
    for mine, theirs in zip(found, expected, strict=True):
        # Sums of 20 and 6 values of a few units, each rounded by 2^-53 = 1e-16 of it.
        torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("scale", [0.0, 1e-10, 1.0, 1e10])
@pytest.mark.parametrize("contiguous", [True, False])
def test_the_sizes_of_values_and_their_order_in_memory_make_no_difference(
    scale: float, contiguous: bool
) -> None:
    norm = a_norm(6)
    x_BHWK = scale * torch.randn(3, 6, 4, 5).permute(0, 2, 3, 1)
    x_BHWK = x_BHWK.contiguous() if contiguous else x_BHWK
    expected = norm(x_BHWK)
    use_fast_response_norm(norm)
    # A sum of 20 squares and one of 6 norms, each rounded by 2^-24: at most 26 * 6e-8 = 1.6e-6.
    torch.testing.assert_close(norm(x_BHWK), expected, rtol=1e-5, atol=1e-5 * scale)


def test_in_float64_no_difference_is_left_that_rounding_does_not_explain() -> None:
    norm = a_norm(6).double()
    x_BHWK = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    expected = norm(x_BHWK)
    use_fast_response_norm(norm)
    torch.testing.assert_close(norm(x_BHWK), expected, rtol=1e-14, atol=1e-14)


def test_bfloat16_is_left_to_the_stock_module_bit_for_bit() -> None:
    norm = a_norm(6).bfloat16()
    x_BHWK = torch.randn(3, 4, 5, 6, dtype=torch.bfloat16)
    expected = norm(x_BHWK)
    use_fast_response_norm(norm)
    assert torch.equal(norm(x_BHWK), expected)


def test_where_its_weights_train_the_response_norm_is_stock(tiny: Preset) -> None:
    unet = build_stage_c(tiny).unet
    use_fast_response_norm(unet)
    norm = next(m for m in unet.modules() if isinstance(m, GlobalResponseNorm))
    norm.requires_grad_(True)
    norm(torch.randn(2, 3, 3, norm.gamma.shape[-1])).sum().backward()
    assert norm.gamma.grad is not None


def test_a_pipeline_computes_all_of_them_fast_and_makes_the_stock_picture(
    tiny: Preset, user_emb_D: np.ndarray
) -> None:
    pipeline = Pipeline.random(tiny, ["a", "red", "boat"], dtype=torch.float64)
    unets = (pipeline.stage_c.unet, pipeline.decoder.stage_b)
    for unet in unets:
        assert kinds(unet).keys() == {FastResponseNorm}
    request = ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=4)
    keys = list(pipeline.stage_c.state_dict())
    (fast,) = pipeline.generate([request])
    for unet in unets:
        use_stock(unet)
        assert kinds(unet).keys() == {GlobalResponseNorm}
    assert list(pipeline.stage_c.state_dict()) == keys
    (stock,) = pipeline.generate([request])
    assert np.array_equal(fast.image_HWC, stock.image_HWC)  # float64: 1e-11 grey levels apart
