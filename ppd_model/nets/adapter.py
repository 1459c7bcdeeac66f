"""User embedding -> user tokens -> K', V' at every attention block of Stage C (paper, Eq. 7).

    Z' = softmax(Q K^T / sqrt d) V  +  strength * softmax(Q K'^T / sqrt d) V'

Q is the block's own; K and V are the block's own keys and values (image tokens and text tokens in
one softmax, as Stable Cascade does); K' = W'_k u and V' = W'_v u come from the user tokens u. The
sum is taken before the output projection.

What the user adds is data, not state: an ``AttentionInput`` holds the text and the user part of
one forward pass and travels through the network in the place of the text tokens. Nothing is set on
a module and left there, so gradient checkpointing recomputes with exactly what it saw.

Legend: B rows, D embedding width, M user tokens, S text tokens, N image tokens, h heads, d head
width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from diffusers.models.unets.unet_stable_cascade import SDCascadeAttnBlock, StableCascadeUNet
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

NORM_EPS = 1e-6


@dataclass(frozen=True)
class KeyValue:
    """Keys and values of one attention block, split into heads: B x h x (M or S) x d."""

    key: Tensor
    value: Tensor


@dataclass(frozen=True)
class UserPart:
    """K', V' of every attention block in order, and the strength of each row (B)."""

    blocks: tuple[KeyValue, ...]
    strength_B: Tensor

    def to(self, dtype: torch.dtype) -> UserPart:
        """The same as ``dtype``; gradient flows back."""
        blocks = (KeyValue(block.key.to(dtype), block.value.to(dtype)) for block in self.blocks)
        return UserPart(tuple(blocks), self.strength_B.to(dtype))


@dataclass(frozen=True)
class AttentionInput:
    """What every attention block attends to besides the picture itself.

    ``text_BSD`` are Stage C's own normalised text tokens. ``text_blocks`` are their keys and
    values block by block where they were computed beforehand: they do not change over denoising
    steps, and neither do K' and V'. ``user`` is None where the adapter is off.
    """

    text_BSD: Tensor
    text_blocks: tuple[KeyValue, ...] | None = None
    user: UserPart | None = None


class UserProjector(nn.Module):
    """User embedding -> M user tokens; zero in, exactly zero out.

    Hidden states of a language model share a large common part (for ``mini``'s VLM it is nearly
    five times as long as what tells people apart), so an embedding is first centred on
    ``center_D``, the mean over the people trained on (``center_on``; zero until then). The zero
    embedding means "nobody" and stays zero. No bias and no affine normalisation: 0 stays 0 through
    the matrix, and (0 - 0) / sqrt(0 + eps) is 0. Holds ``user_emb_dim * M * token_dim`` weights.
    """

    center_D: Tensor

    def __init__(self, user_emb_dim: int, tokens: int, token_dim: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.register_buffer("center_D", torch.zeros(user_emb_dim))
        self.to_tokens = nn.Linear(user_emb_dim, tokens * token_dim, bias=False)
        self.norm = nn.LayerNorm(token_dim, eps=NORM_EPS, elementwise_affine=False)

    def forward(self, user_emb_BD: Tensor) -> Tensor:
        """B x D -> B x M x token_dim, each token of mean 0 and variance 1, or exactly zero."""
        is_nobody_B1 = (user_emb_BD == 0).all(dim=1, keepdim=True)
        centred_BD = (user_emb_BD - self.center_D).masked_fill(is_nobody_B1, 0.0)
        tokens_BMD = self.to_tokens(centred_BD).view(len(user_emb_BD), self.tokens, -1)
        normed_BMD: Tensor = self.norm(tokens_BMD)
        return normed_BMD

    def center_on(self, user_emb_ND: Tensor) -> None:
        """Centre embeddings on the mean of these, N x D, from now on."""
        self.center_D.copy_(user_emb_ND.mean(dim=0))


class Adapter(nn.Module):
    """The trainable network: the projector and one W'_k, W'_v pair for each attention block.

    W'_v starts at zero, so training starts at the base model; W'_k starts with unit-variance
    keys. At least two user tokens: a softmax over one key is 1 and W'_k would never learn.

    Weights of W'_k and W'_v: 2 * sum over blocks of ``token_dim * block_dim``: 150,994,944 for
    ``stable-cascade-1b`` with 1536-wide tokens (the paper's "150M") and 536,870,912 for
    ``stable-cascade`` with 2048-wide tokens. The projector adds ``user_emb_dim * M * token_dim``:
    22,020,096 and 29,360,128 with LLaVA-OneVision-7B's 3584 and 4 tokens.
    """

    def __init__(
        self,
        *,
        user_emb_dim: int,
        token_dim: int,
        tokens: int,
        block_dims: Sequence[int],
        block_heads: Sequence[int],
    ) -> None:
        super().__init__()
        if tokens < 2:
            raise ValueError(f"tokens must be at least 2, got {tokens}: with one, W'_k is dead")
        if not block_dims or len(block_dims) != len(block_heads):
            raise ValueError(
                f"expected one width and one head count for each attention block, "
                f"got {len(block_dims)} and {len(block_heads)}"
            )
        self.user_emb_dim = user_emb_dim
        self.token_dim = token_dim
        self.block_heads = tuple(block_heads)
        self.projector = UserProjector(user_emb_dim, tokens, token_dim)
        self.to_k = nn.ModuleList(nn.Linear(token_dim, dim, bias=False) for dim in block_dims)
        self.to_v = nn.ModuleList(nn.Linear(token_dim, dim, bias=False) for dim in block_dims)
        self.enabled = True
        self.reset_parameters()

    @classmethod
    def for_unet(
        cls, unet: StableCascadeUNet, *, user_emb_dim: int, token_dim: int, tokens: int
    ) -> Adapter:
        """An adapter that fits every attention block of ``unet``."""
        blocks = attention_blocks(unet)
        return cls(
            user_emb_dim=user_emb_dim,
            token_dim=token_dim,
            tokens=tokens,
            block_dims=[block.attention.inner_dim for block in blocks],
            block_heads=[block.attention.heads for block in blocks],
        )

    def reset_parameters(self) -> None:
        """Training starts here: the output of Stage C is the base's, whatever the user."""
        nn.init.normal_(self.projector.to_tokens.weight, std=self.user_emb_dim**-0.5)
        for weight in self.to_k.parameters():
            nn.init.normal_(weight, std=self.token_dim**-0.5)
        for weight in self.to_v.parameters():
            nn.init.zeros_(weight)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within it, the same weights are the base model: the reference of Eq. 6."""
        before = self.enabled
        self.enabled = False
        try:
            yield
        finally:
            self.enabled = before

    def forward(self, user_emb_BD: Tensor, strength_B: Tensor) -> UserPart:
        """K' and V' of every block. A zero embedding gives exactly zero keys and values.

        Raises ValueError for an embedding of another width or batch.
        """
        if user_emb_BD.dim() != 2 or user_emb_BD.shape[1] != self.user_emb_dim:
            raise ValueError(
                f"user embedding of shape {tuple(user_emb_BD.shape)}, "
                f"this adapter expects (B, {self.user_emb_dim})"
            )
        if strength_B.shape != user_emb_BD.shape[:1]:
            raise ValueError(
                f"strength of shape {tuple(strength_B.shape)} for {len(user_emb_BD)} rows"
            )
        tokens_BMD = self.projector(user_emb_BD)
        blocks = tuple(
            KeyValue(split_heads(to_k(tokens_BMD), heads), split_heads(to_v(tokens_BMD), heads))
            for to_k, to_v, heads in zip(self.to_k, self.to_v, self.block_heads, strict=True)
        )
        return UserPart(blocks, strength_B)


class DecoupledAttnBlock(SDCascadeAttnBlock):  # type: ignore[misc]
    """A Stable Cascade attention block that also takes an ``AttentionInput``.

    It adopts the modules of the block it replaces, so names and values of the base's weights are
    unchanged; given plain text tokens it is the stock block.
    """

    def __init__(self, stock: SDCascadeAttnBlock, index: int) -> None:
        nn.Module.__init__(self)
        self.self_attn = stock.self_attn
        self.norm = stock.norm
        self.attention = stock.attention
        self.kv_mapper = stock.kv_mapper
        self.index = index

    def forward(self, x_BCHW: Tensor, attended: Tensor | AttentionInput) -> Tensor:
        """Stock for text tokens alone; with a user, Eq. 7 in the place of the attention."""
        if isinstance(attended, Tensor):
            stock_out_BCHW: Tensor = super().forward(x_BCHW, attended)
            return stock_out_BCHW
        if attended.text_blocks is None and attended.user is None:
            stock_out_BCHW = super().forward(x_BCHW, attended.text_BSD)
            return stock_out_BCHW

        attention = self.attention
        image_BNC = self.norm(x_BCHW).flatten(2).transpose(1, 2)
        own = self._own_keys_and_values(image_BNC, attended)
        user = None if attended.user is None else attended.user.blocks[self.index]
        strength_B = None if attended.user is None else attended.user.strength_B
        z_BhNd = decoupled_attention(
            split_heads(attention.to_q(image_BNC), attention.heads), own, user, strength_B
        )
        z_BNC = z_BhNd.transpose(1, 2).flatten(2)
        out_BNC = attention.to_out[1](attention.to_out[0](z_BNC))
        out_BCHW: Tensor = x_BCHW + out_BNC.transpose(1, 2).reshape(x_BCHW.shape)
        return out_BCHW

    def text_keys_and_values(self, text_BSD: Tensor) -> KeyValue:
        """Keys and values of the text tokens: the same at every denoising step."""
        mapped_BSC = self.kv_mapper(text_BSD)
        heads = self.attention.heads
        return KeyValue(
            split_heads(self.attention.to_k(mapped_BSC), heads),
            split_heads(self.attention.to_v(mapped_BSC), heads),
        )

    def _own_keys_and_values(self, image_BNC: Tensor, attended: AttentionInput) -> KeyValue:
        attention = self.attention
        if attended.text_blocks is None:  # the stock block's order of operations, bit for bit
            own_BSC = self.kv_mapper(attended.text_BSD)
            if self.self_attn:
                own_BSC = torch.cat([image_BNC, own_BSC], dim=1)
            return KeyValue(
                split_heads(attention.to_k(own_BSC), attention.heads),
                split_heads(attention.to_v(own_BSC), attention.heads),
            )
        text = attended.text_blocks[self.index]
        if not self.self_attn:
            return text
        image_key = split_heads(attention.to_k(image_BNC), attention.heads)
        image_value = split_heads(attention.to_v(image_BNC), attention.heads)
        return KeyValue(
            torch.cat([image_key, text.key], dim=2), torch.cat([image_value, text.value], dim=2)
        )


def decoupled_attention(
    q_BhNd: Tensor, own: KeyValue, user: KeyValue | None, strength_B: Tensor | None
) -> Tensor:
    """Paper, Eq. 7, before the output projection, B x h x N x d.

    A row whose V' is zero, or whose strength is 0, adds exact zeros: its result is the base's.
    """
    z_BhNd = scaled_dot_product_attention(q_BhNd, own.key, own.value)
    if user is None or strength_B is None:
        return z_BhNd
    user_BhNd = scaled_dot_product_attention(q_BhNd, user.key, user.value)
    return z_BhNd + strength_B.to(z_BhNd.dtype)[:, None, None, None] * user_BhNd


def split_heads(x_BSC: Tensor, heads: int) -> Tensor:
    rows, length, _ = x_BSC.shape
    return x_BSC.view(rows, length, heads, -1).transpose(1, 2)


def install(unet: StableCascadeUNet) -> None:
    """Let every attention block of ``unet`` take an ``AttentionInput``; its weights stay as named.

    Doing it twice changes nothing.
    """
    index = 0
    for level in (*unet.down_blocks, *unet.up_blocks):
        for position, block in enumerate(level):
            if isinstance(block, SDCascadeAttnBlock):
                if not isinstance(block, DecoupledAttnBlock):
                    level[position] = DecoupledAttnBlock(block, index)
                index += 1


def attention_blocks(unet: StableCascadeUNet) -> list[SDCascadeAttnBlock]:
    """The attention blocks in the order in which the network runs them."""
    return [
        block
        for level in (*unet.down_blocks, *unet.up_blocks)
        for block in level
        if isinstance(block, SDCascadeAttnBlock)
    ]


def precompute_text(unet: StableCascadeUNet, attended: AttentionInput) -> AttentionInput:
    """The same input with the text's keys and values computed once, for use at every step."""
    blocks = attention_blocks(unet)
    assert all(isinstance(block, DecoupledAttnBlock) for block in blocks), "install(unet) first"
    return replace(
        attended,
        text_blocks=tuple(block.text_keys_and_values(attended.text_BSD) for block in blocks),
    )


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    """What an optimiser gets: the parameters that require gradient."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
