"""Layers whose result for a row does not depend on how many rows stand beside it, on the CPU.

Matrix products there take another path for another number of rows: a product of few rows (one for
each picture: times, pooled texts, users) rounds otherwise alone than in company, and so does a
plain convolution of many pictures. The first steps of sampling multiply such a difference by up to
1 / sqrt(alpha-bar(1)) = 100. Here each picture's few rows are a product of their own, and
convolutions take at most `CONV_ROWS` pictures at once. Products of many rows a picture are left as
they are: they were measured to give the same bits at every batch size.

This holds for one thread. Two threads divide the work of a single row otherwise than that of more:
there an unguided picture that has a pass to itself differs by rounding, guided ones do not.

On other devices and for bfloat16 these are the stock layers: there rows differ by rounding.

Legend: B rows of the batch, N positions of a row, K features in, M features out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

EXACT_DTYPES = (torch.float32, torch.float64)
FEW_POSITIONS = 16
"""Fewer positions than this for a picture, and the product is done picture by picture."""
CONV_ROWS = 8


class RowExactLinear(nn.Linear):
    """`nn.Linear`; the first dimension of its input is the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """What the stock layer gives, to rounding."""
        if not _exact(x) or x.dim() < 2 or x[0].numel() >= FEW_POSITIONS * self.in_features:
            return super().forward(x)
        x_BNK = x.reshape(len(x), -1, self.in_features)
        weight_BKM = self.weight.t().expand(len(x), -1, -1)
        if self.bias is None:
            out_BNM = torch.bmm(x_BNK, weight_BKM)
        else:
            out_BNM = torch.baddbmm(self.bias, x_BNK, weight_BKM)
        return out_BNM.view(*x.shape[:-1], self.out_features)


class RowExactConv2d(nn.Conv2d):
    """`nn.Conv2d`, at most `CONV_ROWS` pictures at once."""

    def forward(self, input: Tensor) -> Tensor:
        """What the stock layer gives, to rounding."""
        if not _exact(input):
            return super().forward(input)
        return _in_parts(super().forward, input)


class RowExactConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d`, at most `CONV_ROWS` pictures at once."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """What the stock layer gives, to rounding."""
        if not _exact(input):
            return super().forward(input, output_size)
        forward = super().forward
        return _in_parts(lambda x_BCHW: forward(x_BCHW, output_size), input)


def use_row_exact(model: nn.Module) -> None:
    """Let the layers of `model` compute this way; its weights and their names stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = RowExactLinear
        elif type(module) is nn.Conv2d and module.groups == 1:
            module.__class__ = RowExactConv2d
        elif type(module) is nn.ConvTranspose2d and module.groups == 1:
            module.__class__ = RowExactConvTranspose2d


def _in_parts(forward: Callable[[Tensor], Tensor], x_BCHW: Tensor) -> Tensor:
    if len(x_BCHW) <= CONV_ROWS:
        return forward(x_BCHW)
    return torch.cat([forward(part) for part in x_BCHW.split(CONV_ROWS)])


def _exact(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in EXACT_DTYPES and len(x) > 0
