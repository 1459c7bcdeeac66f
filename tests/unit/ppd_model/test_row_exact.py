"""A row's bits do not depend on its company, where the CPU computes; layers stay what they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ppd_model.pipeline import ImageRequest, Pipeline
from ppd_model.row_exact import RowExactLinear, use_row_exact


@pytest.mark.parametrize("rows", [2, 3, 8, 16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("positions", [(), (1,), (4,), (16,), (8, 8)])
def test_a_linear_layer_gives_every_row_its_own_bits(
    rows: int, bias: bool, positions: tuple[int, ...]
) -> None:
    layer = nn.Linear(64, 192, bias=bias)
    x = torch.randn(rows, *positions, 64)
    stock = layer(x)
    use_row_exact(layer)
    assert isinstance(layer, RowExactLinear)
    together = layer(x)
    torch.testing.assert_close(together, stock)
    assert torch.equal(together, torch.cat([layer(x[i : i + 1]) for i in range(rows)]))


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_convolution_gives_every_row_its_own_bits(kind: type[nn.Module]) -> None:
    layer = kind(16, 32, 1)
    x = torch.randn(17, 16, 8, 8)
    stock = layer(x)
    use_row_exact(layer)
    together = layer(x)
    torch.testing.assert_close(together, stock)
    assert torch.equal(together, torch.cat([layer(x[i : i + 1]) for i in range(17)]))


def test_gradient_passes_as_before() -> None:
    layer, x = nn.Linear(8, 4), torch.randn(3, 2, 8, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    use_row_exact(layer)
    (own,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(own, expected)


def test_latents_of_a_whole_run_in_float32_have_the_bits_they_have_alone(
    pipeline: Pipeline, user_emb_D: np.ndarray
) -> None:
    requests = [
        ImageRequest(
            prompt,
            seed,
            user_emb_D=user_emb_D if seed % 2 else None,
            steps=2 + seed % 3,
            guidance_scale=4.0 if seed % 3 else 1.0,
        )
        for seed, prompt in enumerate(["a red boat", "the sea", "a tree", "the hill at night"] * 3)
    ]
    together = pipeline.sample_latents(requests, [seeded(r) for r in requests])
    for row, request in enumerate(requests):
        alone = pipeline.sample_latents([request], [seeded(request)])
        assert torch.equal(together[row], alone[0])


def seeded(request: ImageRequest) -> torch.Generator:
    return torch.Generator().manual_seed(request.seed)
