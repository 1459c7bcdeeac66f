"""The running batch: rows of one latent shape, each at its own place in its own schedule.

A row takes one slot of the network, or two if it is guided: the prompt's and the negative
prompt's. Keys and values of text and user lie in buffers with a place for every slot, all blocks of
the network; they are written when a row joins, and the last slot moves into the hole when one
leaves, so nothing is gathered at a step. Nothing here looks at another row.

Legend: R rows of pictures, N slots of the network, C H W latent channels and sides.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ppd_model.nets.adapter import AttentionInput, KeyValue, UserPart, attention_blocks
from ppd_model.nets.diffusion import ddpm_step, predict_x0
from ppd_model.sampling.devices import DeviceSupport, padded
from ppd_model.sampling.forward import forward_of
from ppd_model.sampling.requests import Models
from ppd_model.sampling.rows import Row


@dataclass(frozen=True)
class _Slot:
    row: Row
    negative: bool


class RunningBatch:
    """Rows of one latent shape and one number of user tokens. For one thread, without gradient."""

    def __init__(
        self,
        models: Models,
        support: DeviceSupport,
        shape_CHW: tuple[int, int, int],
        user_tokens: int,
    ) -> None:
        self.support = support
        self.shape_CHW = shape_CHW
        self.rows: list[Row] = []
        self._preset = models.preset
        self._personalize_negative = models.personalize_negative
        self._device = models.device
        self._dtype = models.latent_dtype
        self._slots: list[_Slot] = []
        self._latent_RCHW = torch.zeros(
            support.max_rows, *shape_CHW, dtype=self._dtype, device=self._device
        )
        self._keys_and_values = _Buffers(models, support.max_rows, user_tokens)
        self._forward = forward_of(models.stage_c, support, self._latent_RCHW)
        self._row_of_slot_N = self._prompt_of_row_R = self._negative_of_row_R = torch.zeros(
            0, dtype=torch.long, device=self._device
        )
        self._guidance_R111: Tensor | None = None

    @property
    def network_rows(self) -> int:
        return len(self._slots)

    def has_place(self, row: Row) -> bool:
        """Whether the buffers hold one more such row."""
        return self.network_rows + row.network_rows <= self.support.max_rows

    def join(self, row: Row) -> None:
        """The row takes part from the next step on, from where it is. It has a place."""
        assert self.has_place(row)
        assert row.shape_CHW == self.shape_CHW
        before = len(self._slots)
        try:
            self._latent_RCHW[len(self.rows)].copy_(row.start())
            self._take_slot(_Slot(row, negative=False))
            if row.negative is not None:
                self._take_slot(_Slot(row, negative=True))
        except BaseException:
            del self._slots[before:]
            raise
        self.rows.append(row)
        self._index()

    def leave(self, row: Row) -> None:
        """The row takes no further part; it keeps where it has come."""
        place = self.rows.index(row)
        row.latent_CHW = self._latent_RCHW[place].clone()
        last = len(self.rows) - 1
        if place != last:
            self._latent_RCHW[place].copy_(self._latent_RCHW[last])
            self.rows[place] = self.rows[last]
        self.rows.pop()
        for slot in range(len(self._slots) - 1, -1, -1):
            if self._slots[slot].row is row:
                last_slot = self._slots.pop()
                if slot < len(self._slots):
                    self._slots[slot] = last_slot
                    self._keys_and_values.move(len(self._slots), slot)
        self._index()

    def clear(self) -> list[Row]:
        """Everybody leaves, as they are; a batch after a fault is as good as new."""
        rows, self.rows, self._slots = self.rows, [], []
        return rows

    def step(self, guesses: Collection[Row] = ()) -> dict[Row, Tensor]:
        """One denoising step of every row; returns the clean latents guessed for some of them.

        Either every row has made its step, or the batch is as it was and this raises.
        """
        rows = self.rows
        x_RCHW = self._latent_RCHW[: len(rows)]
        t_R, t_next_R, strength_N = self._numbers()
        eps_RCHW = self._predict_noise(x_RCHW, t_R, strength_N)
        noise_RCHW = self._moved(torch.stack([row.step_noise() for row in rows]))
        clamp = self._preset.stage_c_x0_clamp
        next_RCHW = ddpm_step(x_RCHW, eps_RCHW, t_R, t_next_R, noise_RCHW, clamp)
        guessed = {
            row: _guess(x_RCHW[i], eps_RCHW[i], t_R[i], clamp)
            for i, row in enumerate(rows)
            if row in guesses
        }
        x_RCHW.copy_(next_RCHW)
        for row in rows:
            row.step_made()
        return guessed

    def _predict_noise(self, x_RCHW: Tensor, t_R: Tensor, strength_N: Tensor | None) -> Tensor:
        """Guided in one pass: the noise of the prompts, moved away from that of the negatives."""
        slots = len(self._slots)
        size = padded(slots, self.support.sizes)
        out_NCHW = self._forward(
            x_RCHW.index_select(0, self._row_of_slot_N),
            t_R.index_select(0, self._row_of_slot_N),
            strength_N,
            self._keys_and_values.first(size),
        )
        if self._guidance_R111 is None:
            return out_NCHW.index_select(0, self._prompt_of_row_R)
        return torch.lerp(
            out_NCHW.index_select(0, self._negative_of_row_R),
            out_NCHW.index_select(0, self._prompt_of_row_R),
            self._guidance_R111,
        )

    def _numbers(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Times and next times of the rows, strengths of the slots (None if no user acts now)."""
        times = [row.times[row.done] for row in self.rows]
        times += [row.times[row.done + 1] for row in self.rows]
        strengths = [
            0.0 if slot.negative and not self._personalize_negative else slot.row.strength_now
            for slot in self._slots
        ]
        rows = len(self.rows)
        numbers = self._moved(torch.tensor(times + strengths, dtype=self._dtype))
        strength_N = numbers[2 * rows :] if any(strengths) else None
        return numbers[:rows], numbers[rows : 2 * rows], strength_N

    def _moved(self, host: Tensor) -> Tensor:
        """On the device, without waiting for it."""
        if not self.support.asynchronous:
            return host.to(self._device)
        return host.pin_memory().to(self._device, non_blocking=True)

    def _take_slot(self, slot: _Slot) -> None:
        text = slot.row.negative if slot.negative else slot.row.prompt
        assert text is not None
        with_user = not slot.negative or self._personalize_negative
        user = slot.row.user_blocks if with_user else None
        self._keys_and_values.write(len(self._slots), text.blocks, user)
        self._slots.append(slot)

    def _index(self) -> None:
        """Which slot belongs to which row: made anew when someone joins or leaves."""
        place = {row: i for i, row in enumerate(self.rows)}
        prompt = [0] * len(self.rows)
        negative = [-1] * len(self.rows)
        for i, slot in enumerate(self._slots):
            (negative if slot.negative else prompt)[place[slot.row]] = i
        negative = [own if own >= 0 else prompt[i] for i, own in enumerate(negative)]
        self._row_of_slot_N = self._long([place[slot.row] for slot in self._slots])
        self._prompt_of_row_R = self._long(prompt)
        self._negative_of_row_R = self._long(negative)
        self._guidance_R111 = None
        if len(self._slots) > len(self.rows):
            scales = [row.guidance for row in self.rows]
            guidance_R = self._moved(torch.tensor(scales, dtype=self._dtype))
            self._guidance_R111 = guidance_R[:, None, None, None]

    def _long(self, places: list[int]) -> Tensor:
        return self._moved(torch.tensor(places, dtype=torch.long))


class _Buffers:
    """Keys and values of all blocks, with a place for each slot."""

    def __init__(self, models: Models, slots: int, user_tokens: int) -> None:
        self._models = models
        self._slots = slots
        self._user_tokens = user_tokens
        self._text: tuple[KeyValue, ...] = ()
        self._user: tuple[KeyValue, ...] = ()
        self._views: dict[int, AttentionInput] = {}

    def write(
        self, slot: int, text: tuple[KeyValue, ...], user: tuple[KeyValue, ...] | None
    ) -> None:
        """Fill a place. No user is zeros: they add nothing, whatever was there before."""
        if not self._text:
            self._allocate(text)
        for place, own in zip(self._text, text, strict=True):
            place.key[slot].copy_(own.key[0])
            place.value[slot].copy_(own.value[0])
        for index, place in enumerate(self._user):
            if user is None:
                place.key[slot].zero_()
                place.value[slot].zero_()
            else:
                place.key[slot].copy_(user[index].key[0])
                place.value[slot].copy_(user[index].value[0])

    def move(self, source: int, target: int) -> None:
        for place in (*self._text, *self._user):
            place.key[target].copy_(place.key[source])
            place.value[target].copy_(place.value[source])

    def first(self, slots: int) -> AttentionInput:
        """Views of the first places, always the same ones. The strengths are not set."""
        if slots not in self._views:
            text, user = (
                tuple(KeyValue(place.key[:slots], place.value[:slots]) for place in part)
                for part in (self._text, self._user)
            )
            nothing = self._text[0].key.new_zeros(0)
            self._views[slots] = AttentionInput(nothing, text, UserPart(user, nothing))
        return self._views[slots]

    def _allocate(self, text: tuple[KeyValue, ...]) -> None:
        """Zeros of the sizes that the first text shows: padded slots hold finite numbers."""
        heads = [block.attention.heads for block in attention_blocks(self._models.stage_c.unet)]
        made: list[list[KeyValue]] = [[], []]
        for own, block_heads in zip(text, heads, strict=True):
            user_like = own.key.new_empty(1, block_heads, self._user_tokens, own.key.shape[-1])
            for part, like in zip(made, (own.key, user_like), strict=True):
                part.append(KeyValue(_places(self._slots, like), _places(self._slots, like)))
        self._text, self._user = (tuple(part) for part in made)


def _places(slots: int, like_1: Tensor) -> Tensor:
    return like_1.new_zeros(slots, *like_1.shape[1:])


def _guess(x_CHW: Tensor, eps_CHW: Tensor, t: Tensor, clamp: float | None) -> Tensor:
    """The clean latents that the network has in mind, at most as far out as the sampler goes."""
    x0_1CHW = predict_x0(x_CHW[None], eps_CHW[None], t[None])
    return (x0_1CHW if clamp is None else x0_1CHW.clamp(-clamp, clamp))[0]
