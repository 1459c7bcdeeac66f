"""Pairs in, squared errors of policy and reference out: the frozen base and the adapter as one.

The base is there once. The reference is the same weights with the adapter off; chosen and rejected
pictures go through the network in one batch. What is equal is computed once:

- a pair's caption is the same for both pictures, and the text for policy and reference, so the
  text's keys and values of every block are computed once instead of four times;
- a pair whose user is dropped has the reference's errors, exactly: it takes no second pass
  (but for what is asked `beside` the errors, where the recipes drop nobody);
- where the reference's errors are known beforehand (reference_errors.py), only the policy's pass
  is left, of pairs whose user is there.

Memory of the shared keys and values: pairs * text tokens * 4 * (sum of block widths) numbers,
1.4 GB for `stable-cascade` in bf16 with 16 pairs.

Legend: B pairs, R rows of the network (chosen, then rejected), C H W latent, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from diffusers.models.unets.unet_stable_cascade import SDCascadeResBlock, SDCascadeTimestepBlock
from torch import Tensor, nn

from ppd_model.nets.adapter import AttentionInput, KeyValue, UserPart
from ppd_model.nets.diffusion import add_noise
from ppd_model.nets.response_norm import use_fast_response_norm
from ppd_model.nets.stage_c import StageC, StageCUNet
from training.data.dataset import PairBatch
from training.dpo.loss import PairErrors, Reduction, squared_error
from training.dpo.randomness import Draws

Beside = Literal["opposite", "moved"]
"""What else than errors an objective reads, see `PairModel.errors_and`."""


@dataclass(frozen=True)
class Noised:
    """The pictures of B pairs at their times: R rows, chosen first, then rejected.

    `attended` holds the text alone. `sides` is 2, or 1 where only chosen pictures are looked at.
    """

    xt_RCHW: Tensor
    noise_RCHW: Tensor
    t_R: Tensor
    attended: AttentionInput
    sides: int

    def rows(self, pairs_K: Tensor) -> Noised:
        stride = len(self.t_R) // self.sides
        rows_R = torch.cat([pairs_K + side * stride for side in range(self.sides)])
        text_blocks = self.attended.text_blocks
        assert text_blocks is not None
        return Noised(
            self.xt_RCHW[rows_R],
            self.noise_RCHW[rows_R],
            self.t_R[rows_R],
            AttentionInput(
                self.attended.text_BSD[rows_R],
                tuple(KeyValue(kv.key[rows_R], kv.value[rows_R]) for kv in text_blocks),
            ),
            self.sides,
        )

    def chosen(self) -> Noised:
        """The chosen pictures alone."""
        pairs = len(self.t_R) // self.sides
        text_blocks = self.attended.text_blocks
        assert text_blocks is not None
        return Noised(
            self.xt_RCHW[:pairs],
            self.noise_RCHW[:pairs],
            self.t_R[:pairs],
            AttentionInput(
                self.attended.text_BSD[:pairs],
                tuple(KeyValue(kv.key[:pairs], kv.value[:pairs]) for kv in text_blocks),
            ),
            1,
        )


class PairModel(nn.Module):
    """What accelerate wraps: its `forward` is one training pass.

    The base may be in another dtype; the adapter, the noising and the errors are float32.
    """

    def __init__(
        self,
        stage_c: StageC,
        *,
        reduction: Reduction = "mean",
        gradient_checkpointing: bool = False,
        compile_blocks: bool = False,
    ) -> None:
        super().__init__()
        if compile_blocks:
            _compile_blocks(stage_c.unet)
        else:
            use_fast_response_norm(stage_c.unet)
        if gradient_checkpointing:
            stage_c.unet.enable_gradient_checkpointing()
        self.stage_c = stage_c
        self.reduction: Reduction = reduction

    def forward(
        self,
        batch: PairBatch,
        draws: Draws,
        reference: PairErrors | None = None,
        *,
        chosen_only: bool = False,
        policy_only: bool = False,
        beside: Beside | None = None,
    ) -> (
        tuple[PairErrors, PairErrors] | tuple[PairErrors, PairErrors, Tensor] | PairErrors | Tensor
    ):
        """Errors of policy and reference; `policy_only` the policy's, or, `chosen_only`, the
        policy's on chosen pictures, B.

        reference: its errors under these draws, where they are known; else they are computed.
        beside: as `errors_and`.
        """
        if chosen_only or policy_only or beside is not None:
            assert reference is None, "the reference's errors are not enough, or not asked for"
            noised = self.noised(batch, draws, sides=1 if chosen_only else 2)
            kept_BD = batch.user_emb_BD * draws.keep_user_B[:, None]
            if beside is not None:
                return self.errors_and(beside, noised, kept_BD)
            error_R = self.policy_errors(noised, kept_BD)
            return error_R if chosen_only else as_pairs(error_R)
        user_emb_BD = batch.user_emb_BD
        kept_K = torch.nonzero(draws.keep_user_B).flatten()
        nobody = len(kept_K) == 0
        if nobody:  # every process must take part in each backward pass
            kept_K, user_emb_BD = kept_K.new_zeros(1), torch.zeros_like(user_emb_BD)
        if reference is None:
            noised = self.noised(batch, draws)
            reference_R = self.reference_errors(noised)
            if len(kept_K) < len(user_emb_BD):
                noised = noised.rows(kept_K)
        else:
            reference_R = torch.cat([reference.chosen_B, reference.rejected_B])
            noised = self.noised(batch.rows(kept_K), draws.rows(kept_K))
        rows_R = torch.cat([kept_K, kept_K + len(user_emb_BD)])
        policy_R = self.policy_errors(noised, user_emb_BD[kept_K])
        if nobody:
            policy_R = 0 * policy_R + reference_R[rows_R]
        return as_pairs(reference_R.index_copy(0, rows_R, policy_R)), as_pairs(reference_R)

    @torch.no_grad()
    def noised(self, batch: PairBatch, draws: Draws, sides: int = 2) -> Noised:
        """Every picture at its time, and the text's keys and values, once for each pair."""
        x0_RCHW = torch.cat([batch.chosen_BCHW, batch.rejected_BCHW][:sides])
        noise_RCHW = torch.cat([draws.noise_chosen_BCHW, draws.noise_rejected_BCHW][:sides])
        t_R = torch.cat([draws.t_chosen_B, draws.t_rejected_B][:sides])
        text = self.stage_c.attend(batch.text_BST, batch.pooled_B1T, precompute=True)
        return Noised(
            add_noise(x0_RCHW, noise_RCHW, t_R), noise_RCHW, t_R, _repeated_text(text, sides), sides
        )

    @torch.no_grad()
    def reference_errors(self, noised: Noised) -> Tensor:
        """Squared errors of the base alone, R."""
        return self.errors(noised, self.reference_noise(noised))

    def policy_errors(self, noised: Noised, user_emb_BD: Tensor) -> Tensor:
        """Squared errors with each pair's user, R."""
        return self.errors(noised, self.policy_noise(noised, user_emb_BD))

    def errors_and(
        self, beside: Beside, noised: Noised, user_emb_BD: Tensor
    ) -> tuple[PairErrors, PairErrors, Tensor]:
        """Errors of policy and reference, and beside them, B numbers:

        - "opposite": the opposite's errors on rejected pictures. It departs from the reference as
          far as the policy does, the other way: it predicts 2 * reference - policy;
        - "moved": how far the policy is from the reference on chosen pictures, squared.
        """
        reference_RCHW = self.reference_noise(noised)
        policy_RCHW = self.policy_noise(noised, user_emb_BD)
        policy = as_pairs(self.errors(noised, policy_RCHW))
        reference = as_pairs(self.errors(noised, reference_RCHW))
        if beside == "opposite":
            opposite = as_pairs(self.errors(noised, 2 * reference_RCHW - policy_RCHW))
            return policy, reference, opposite.rejected_B
        moved = as_pairs(squared_error(reference_RCHW, policy_RCHW, self.reduction))
        return policy, reference, moved.chosen_B

    def _predicted(self, noised: Noised, attended: AttentionInput) -> Tensor:
        return self.stage_c.predict_noise(noised.xt_RCHW, noised.t_R, attended)

    @torch.no_grad()
    def reference_noise(self, noised: Noised) -> Tensor:
        """What the base alone predicts, R x C x H x W."""
        return self._predicted(noised, noised.attended)

    def policy_noise(self, noised: Noised, user_emb_BD: Tensor) -> Tensor:
        """What is predicted with each pair's user, R x C x H x W."""
        adapter, strength_B = self.stage_c.adapter, user_emb_BD.new_ones(len(user_emb_BD))
        user: UserPart = adapter(user_emb_BD, strength_B)
        with_user = replace(noised.attended, user=user.to(self.stage_c.unet.dtype))
        return self._predicted(noised, _repeated_user(with_user, noised.sides))

    def errors(self, noised: Noised, predicted_RCHW: Tensor) -> Tensor:
        """Squared errors of such a prediction, R."""
        return squared_error(noised.noise_RCHW, predicted_RCHW, self.reduction)


def as_pairs(error_R: Tensor) -> PairErrors:
    """Chosen and rejected apart."""
    chosen_B, rejected_B = error_R.chunk(2)
    return PairErrors(chosen_B, rejected_B)


def _compile_blocks(unet: StageCUNet) -> None:
    """Compile residual and timestep blocks, stock response norms and all, for any number of rows.

    Attention blocks stay as they are: each has a place of its own in the input that they share,
    and would be a graph of its own.
    """
    for level in (*unet.down_blocks, *unet.up_blocks):
        for block in level:
            if isinstance(block, SDCascadeResBlock | SDCascadeTimestepBlock):
                block.compile(dynamic=True)


def _repeated_text(text: AttentionInput, sides: int) -> AttentionInput:
    if sides == 1:
        return text
    assert text.text_blocks is not None
    return AttentionInput(
        text.text_BSD.repeat(sides, 1, 1), tuple(_repeated_kv(kv, sides) for kv in text.text_blocks)
    )


def _repeated_user(attended: AttentionInput, sides: int) -> AttentionInput:
    user = attended.user
    assert user is not None
    if sides == 1:
        return attended
    blocks = tuple(_repeated_kv(kv, sides) for kv in user.blocks)
    return replace(
        attended, user=replace(user, blocks=blocks, strength_B=user.strength_B.repeat(sides))
    )


def _repeated_kv(kv: KeyValue, sides: int) -> KeyValue:
    return KeyValue(kv.key.repeat(sides, 1, 1, 1), kv.value.repeat(sides, 1, 1, 1))
