"""The running batch: rows of one latent shape, each at its own place in its own schedule.

A row takes a slot of the network for its prompt and, in the steps in which it is guided, one for
the negative prompt. Keys and values of text and user lie in buffers with a place for every slot,
all blocks of the network; they are written when a slot is taken, and the last slot moves into the
hole when one is given up, so nothing is gathered at a step. Nothing here looks at another row, but
for one thing: until the adapter acts, a personal picture and its base, or one picture at several
strengths, are the same pass of the network, and it is made once and kept for a while.

Legend: R rows of pictures, N slots of the network, C H W latent channels and sides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ppd_model.nets.adapter import AttentionInput, KeyValue, UserPart, attention_blocks
from ppd_model.sampling.devices import DeviceSupport, padded
from ppd_model.sampling.forward import forward_of
from ppd_model.sampling.recently_used import Recent
from ppd_model.sampling.requests import Models
from ppd_model.sampling.rows import Row

COMMON_STEPS_KEPT = 256


class _Slot(NamedTuple):
    row: Row
    negative: bool


def _no_places() -> Tensor:
    return torch.zeros(0, dtype=torch.long)


@dataclass
class _Readers:
    """What rows read in a step: slots of the pass, or noise that was predicted before."""

    key: object = None
    row_of_slot_N: Tensor = field(default_factory=_no_places)
    prompt_of_row_R: Tensor = field(default_factory=_no_places)
    negative_of_row_R: Tensor = field(default_factory=_no_places)
    guidance_R111: Tensor | None = None
    rescale_R111: Tensor | None = None
    kept: dict[int, Tensor] = field(default_factory=dict)
    to_keep: dict[int, tuple[bytes, int]] = field(default_factory=dict)


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
        self._clamp = models.preset.stage_c_x0_clamp
        self._personalize_negative = models.personalize_negative
        self._device = models.device
        self._dtype = models.latent_dtype
        self._slots: list[_Slot] = []
        self._latent_RCHW, self._x0_RCHW = (
            torch.zeros(support.max_rows, *shape_CHW, dtype=self._dtype, device=self._device)
            for _ in range(2)
        )
        self._keys_and_values = _Buffers(models, support.max_rows, user_tokens)
        self._forward = forward_of(models.stage_c, support, self._latent_RCHW)
        self._common: Recent[tuple[bytes, int], Tensor] = Recent(COMMON_STEPS_KEPT)
        """Noise predicted, C x H x W, by what is common to rows in that step."""
        self._readers = _Readers()

    @property
    def network_rows(self) -> int:
        """Slots of the latest pass, and of rows that have joined since."""
        return len(self._slots)

    @property
    def most_network_rows(self) -> int:
        """Slots that these rows may need at once in steps to come."""
        return sum(row.network_rows for row in self.rows)

    def has_place(self, row: Row) -> bool:
        """Whether the buffers hold one more such row."""
        return self.most_network_rows + row.network_rows <= self.support.max_rows

    def join(self, row: Row) -> None:
        """The row takes part from the next step on, from where it is. It has a place."""
        assert self.has_place(row)
        assert row.shape_CHW == self.shape_CHW
        place = len(self.rows)
        self._latent_RCHW[place].copy_(row.start())
        self._x0_RCHW[place].copy_(row.start() if row.x0_CHW is None else row.x0_CHW)
        self.rows.append(row)
        try:
            self._settle()
        except BaseException:
            self.rows.pop()
            self._slots = [slot for slot in self._slots if slot.row is not row]
            raise

    def leave(self, row: Row) -> None:
        """The row takes no further part; it keeps where it has come."""
        place = self.rows.index(row)
        row.latent_CHW = self._latent_RCHW[place].clone()
        row.x0_CHW = self._x0_RCHW[place].clone()
        last = len(self.rows) - 1
        if place != last:
            self._latent_RCHW[place].copy_(self._latent_RCHW[last])
            self._x0_RCHW[place].copy_(self._x0_RCHW[last])
            self.rows[place] = self.rows[last]
        self.rows.pop()
        self._settle()

    def clear(self) -> list[Row]:
        """Everybody leaves, as they are; a batch after a fault is as good as new."""
        rows, self.rows, self._slots = self.rows, [], []
        return rows

    def step(self, guesses: Collection[Row] = ()) -> dict[Row, Tensor]:
        """One denoising step of every row; returns the clean latents guessed for some of them.

        Either every row has made its step, or the batch is as it was and this raises.
        """
        self._settle()
        rows = self.rows
        x_RCHW, before_RCHW = self._latent_RCHW[: len(rows)], self._x0_RCHW[: len(rows)]
        numbers_R, strength_N = self._numbers()
        t_R = numbers_R[0]
        alpha, sigma, keep, clean, before, fresh = (
            numbers_R[1:].view(6, len(rows), 1, 1, 1).unbind()
        )
        eps_RCHW = self._predict_noise(x_RCHW, t_R, strength_N)
        x0_RCHW = (x_RCHW - sigma * eps_RCHW) / alpha
        if self._clamp is not None:
            x0_RCHW = x0_RCHW.clamp(-self._clamp, self._clamp)
        next_RCHW = keep * x_RCHW + clean * x0_RCHW + before * before_RCHW
        noise_RCHW = self._step_noise()
        if noise_RCHW is not None:
            next_RCHW += fresh * noise_RCHW
        guessed = {row: x0_RCHW[i] for i, row in enumerate(rows) if row in guesses}
        x_RCHW.copy_(next_RCHW)
        before_RCHW.copy_(x0_RCHW)
        for row in rows:
            row.step_made()
        return guessed

    def _predict_noise(self, x_RCHW: Tensor, t_R: Tensor, strength_N: Tensor | None) -> Tensor:
        """Guided in one pass: the noise of the prompts, moved away from that of the negatives."""
        readers = self._readers
        eps_RCHW = torch.empty_like(x_RCHW)
        if self._slots:
            size = padded(len(self._slots), self.support.sizes)
            out_NCHW = self._forward(
                x_RCHW.index_select(0, readers.row_of_slot_N),
                t_R.index_select(0, readers.row_of_slot_N),
                strength_N,
                self._keys_and_values.first(size),
            )
            eps_RCHW = out_NCHW.index_select(0, readers.prompt_of_row_R)
            if readers.guidance_R111 is not None:
                negative_RCHW = out_NCHW.index_select(0, readers.negative_of_row_R)
                guided_RCHW = torch.lerp(negative_RCHW, eps_RCHW, readers.guidance_R111)
                if readers.rescale_R111 is not None:
                    guided_RCHW = rescaled(guided_RCHW, eps_RCHW, readers.rescale_R111)
                eps_RCHW = guided_RCHW
        for place, kept_CHW in readers.kept.items():
            eps_RCHW[place] = kept_CHW
        for place, common in readers.to_keep.items():
            self._common.get_or_make(common, eps_RCHW[place].clone)
        return eps_RCHW

    def _numbers(self) -> tuple[Tensor, Tensor | None]:
        """Numbers of the rows' steps, 7 x R, and strengths of the slots (None if no user acts)."""
        now = [row.now for row in self.rows]
        numbers = [number for of_all in zip(*now, strict=True) for number in of_all]
        strengths = [
            0.0 if slot.negative and not self._personalize_negative else slot.row.strength_now
            for slot in self._slots
        ]
        moved = self._moved(torch.tensor(numbers + strengths, dtype=self._dtype))
        strength_N = moved[len(numbers) :] if any(strengths) else None
        return moved[: len(numbers)].view(7, -1), strength_N

    def _step_noise(self) -> Tensor | None:
        """Noise of the rows that take any in this step, and zeros; None where no row does."""
        drawn = [row.step_noise() for row in self.rows]
        if all(noise_CHW is None for noise_CHW in drawn):
            return None
        nothing_CHW = torch.zeros(self.shape_CHW, dtype=self._dtype)
        return self._moved(torch.stack([nothing_CHW if z is None else z for z in drawn]))

    def _moved(self, host: Tensor) -> Tensor:
        """On the device, without waiting for it."""
        if not self.support.asynchronous:
            return host.to(self._device)
        return host.pin_memory().to(self._device, non_blocking=True)

    def _settle(self) -> None:
        """Slots for what the next step of these rows needs, and for nothing else."""
        makers, kept = self._makers()
        wanted = {
            _Slot(row, negative): None
            for row in makers
            if row is not None
            for negative in ((False, True) if row.guided_now else (False,))
        }
        for place in range(len(self._slots) - 1, -1, -1):
            if self._slots[place] not in wanted:
                last = self._slots.pop()
                if place < len(self._slots):
                    self._slots[place] = last
                    self._keys_and_values.move(len(self._slots), place)
        held = set(self._slots)
        for slot in wanted:  # in the rows' order
            if slot not in held:
                self._take_slot(slot)
        self._read(makers, kept)

    def _makers(self) -> tuple[list[Row | None], dict[int, Tensor]]:
        """For each row, the one whose slots it reads in the next step; None where that is kept."""
        first: dict[tuple[bytes, int], Row] = {}
        kept: dict[int, Tensor] = {}
        makers: list[Row | None] = []
        for place, row in enumerate(self.rows):
            common = None if row.arrived else row.common_now
            known = None if common is None else self._common.get(common)
            if row.arrived or known is not None:
                makers.append(None)
                if known is not None:
                    kept[place] = known
            else:
                makers.append(row if common is None else first.setdefault(common, row))
        return makers, kept

    def _take_slot(self, slot: _Slot) -> None:
        text = slot.row.negative if slot.negative else slot.row.prompt
        assert text is not None
        with_user = not slot.negative or self._personalize_negative
        user = slot.row.user_blocks if with_user else None
        self._keys_and_values.write(len(self._slots), text.blocks, user)
        self._slots.append(slot)

    def _read(self, makers: Sequence[Row | None], kept: dict[int, Tensor]) -> None:
        """Which slots the rows read: made anew where any has changed."""
        key = (list(self.rows), list(self._slots), list(makers))
        if key != self._readers.key:
            place_of = {slot: i for i, slot in enumerate(self._slots)}
            prompt = [place_of[_Slot(row, False)] if row else 0 for row in makers]
            negative = [
                place_of.get(_Slot(row, True), prompt[i]) if row else 0
                for i, row in enumerate(makers)
            ]
            guided = negative != prompt
            rescale = [row.guidance_rescale for row in self.rows]
            self._readers = _Readers(
                key,
                self._long([self.rows.index(slot.row) for slot in self._slots]),
                self._long(prompt),
                self._long(negative),
                self._per_row([row.guidance for row in self.rows]) if guided else None,
                self._per_row(rescale) if guided and any(rescale) else None,
            )
        self._readers.kept = kept
        self._readers.to_keep = {
            place: common
            for place, row in enumerate(self.rows)
            if row is makers[place] and (common := row.common_now) is not None
        }

    def _per_row(self, numbers: Sequence[float]) -> Tensor:
        return self._moved(torch.tensor(numbers, dtype=self._dtype))[:, None, None, None]

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


def rescaled(guided_RCHW: Tensor, prompt_RCHW: Tensor, share_R111: Tensor) -> Tensor:
    """Guided noise, by that share brought to the standard deviation of the prompt's own.

    Guidance widens it, and pictures become glaring. Stable Cascade's own sampler does this by .7,
    over its whole batch (`cfg_rho`); here each row is measured alone.
    """
    wide_R111 = guided_RCHW.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-9)
    narrow_R111 = prompt_RCHW.std(dim=(1, 2, 3), keepdim=True)
    return guided_RCHW * (1 + share_R111 * (narrow_R111 / wide_R111 - 1))


def _places(slots: int, like_1: Tensor) -> Tensor:
    return like_1.new_zeros(slots, *like_1.shape[1:])
