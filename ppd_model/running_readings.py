"""Many sets of four answers read by one VLM: rows leave the running generation, others join.

`UserEncoder.encode_batch` reads a batch to its end: everybody waits for the longest response, and
prompt, pictures and response are read a second time for the embedding. Here each row has a place of
its own in one block of keys and values. A row that has ended leaves at once and the next set takes
its place; pictures and prompt are read once; the embedding is the last layer's state at the
profile's final token, as it was when that token was read in the generation. Equal to a reading by
`encode_batch` but for rounding: other products are taken together.

What this cannot give, a response without a profile or one whose text is other tokens than were
written, is read by `encode_batch` or in a clean pass, alone, as before.

transformers' own continuous batching (5.23) takes tokens only, no pictures, and returns no hidden
states; so does vLLM's generation.

Legend: R rows that run, J rows that join, S tokens, D embedding, V vocabulary, h heads, d their
width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from ppd_model import prompts
from ppd_model.sampling.placement import placed
from ppd_model.types import EncodedUser, LabelledPair
from ppd_model.user_encoder import EncodingError, SeededDraws, UserEncoder, check_reading

FULL = "full_attention"
"""What transformers calls layers in which every token sees all before it: here all of them."""
ROOM = 64
"""Keys and values grow by as many tokens at a time."""


@dataclass(eq=False)
class Row:
    """One set whose response is being written.

    prompt_S and written are tokens; state_D is the last layer's at the latest one that was read,
    logp the log probability of each token that was written.
    """

    number: int
    choices: Sequence[LabelledPair]
    prompt: prompts.Prompt
    prompt_S: list[int]
    seed: int
    draws: SeededDraws | None
    heading: int | None
    written: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    state_D: Tensor | None = None
    ended: bool = False


class KeysAndValues:
    """Keys and values of all rows, each row's from the first place on; what a model's layers see
    as their cache. `reading` says where the next pass writes."""

    def __init__(self, layers: int, rows: int) -> None:
        self._rows = rows
        self._blocks: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self._joining: slice | None = None
        self._place_R = torch.zeros(0, dtype=torch.long)
        self._longest = 0

    def join(self, rows: slice) -> None:
        """The next pass reads whole prompts, into these rows."""
        self._joining = rows

    def step(self, length_R: Tensor) -> None:
        """The next pass reads one token of each row, behind so many."""
        self._joining = None
        self._place_R = length_R
        self._longest = int(length_R.max()) + 1

    def move(self, source: int, target: int) -> None:
        for block in self._blocks:
            assert block is not None
            for tensor in block:
                tensor[target].copy_(tensor[source])

    def update(
        self, key_RhSd: Tensor, value_RhSd: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Keep what was computed; returns all that the rows' tokens attend to."""
        if self._joining is not None:
            self._make_room(layer, key_RhSd, key_RhSd.shape[2])
            for kept, new in zip(self._block(layer), (key_RhSd, value_RhSd), strict=True):
                kept[self._joining, :, : new.shape[2]] = new
            return key_RhSd, value_RhSd
        self._make_room(layer, key_RhSd, self._longest)
        rows = len(self._place_R)
        each_R = torch.arange(rows, device=key_RhSd.device)
        seen = []
        for kept, new in zip(self._block(layer), (key_RhSd, value_RhSd), strict=True):
            kept[each_R, :, self._place_R] = new[:, :, 0]
            seen.append(kept[:rows, :, : self._longest])
        return seen[0], seen[1]

    def _block(self, layer: int) -> tuple[Tensor, Tensor]:
        block = self._blocks[layer]
        assert block is not None
        return block

    def _make_room(self, layer: int, like: Tensor, tokens: int) -> None:
        block = self._blocks[layer]
        had = 0 if block is None else block[0].shape[2]
        if tokens <= had:
            return
        wanted = -(-tokens // ROOM) * ROOM
        shape = (self._rows, like.shape[1], wanted, like.shape[3])
        larger = (like.new_zeros(shape), like.new_zeros(shape))
        if block is not None:
            for old, new in zip(block, larger, strict=True):
                new[:, :, :had] = old
        self._blocks[layer] = larger


class RunningReadings:
    """Reads sets of four, `rows` of them at a time; as many prompts are read in one pass as
    places are free, but for `joining` at most."""

    def __init__(self, encoder: UserEncoder, rows: int, joining: int = 8) -> None:
        self._encoder = encoder
        self._most = rows
        self._joining = min(joining, rows)
        self._language = encoder.model.model.language_model
        self._tokenizer = encoder.processor.tokenizer
        self._end = self._tokenizer.convert_tokens_to_ids(prompts.TURN_END)
        self._cache = KeysAndValues(encoder.model.config.text_config.num_hidden_layers, rows)
        self._rows: list[Row] = []
        self._length_R = torch.zeros(0, dtype=torch.long)

    @torch.inference_mode()
    def read(
        self, sets: Iterable[tuple[int, Sequence[LabelledPair]]], seed: int = 0
    ) -> Iterator[tuple[int, EncodedUser | EncodingError]]:
        """Each set's number and reading, or why there is none, in the order in which they end.

        With decoding "sample" the set of number i is sampled with seed + i. Raises ValueError for
        choices that are not well formed.
        """
        with placed(self._encoder.model, self._encoder.device, offload=self._encoder.offload):
            yield from self._read(iter(sets), seed)

    def _read(
        self, waiting: Iterator[tuple[int, Sequence[LabelledPair]]], seed: int
    ) -> Iterator[tuple[int, EncodedUser | EncodingError]]:
        more = True
        while more or self._rows:
            while more and self._free >= (self._joining if self._rows else 1):
                new = [
                    self._new_row(number, choices, seed + number)
                    for number, choices in islice(waiting, min(self._free, self._joining))
                ]
                more = bool(new)
                if new:
                    self._join(new)
            yield from self._leave()
            if self._rows:
                self._step()

    @property
    def _free(self) -> int:
        return self._most - len(self._rows)

    def _new_row(self, number: int, choices: Sequence[LabelledPair], seed: int) -> Row:
        prompt = self._encoder.prompt_of(choices)
        ids_S = self._tokenizer(prompt.text)["input_ids"]
        allowed = self._encoder.allowed
        heading = None if allowed is None else allowed.last_heading(ids_S)
        return Row(number, choices, prompt, ids_S, seed, self._encoder.draws(seed), heading)

    def _join(self, new: Sequence[Row]) -> None:
        """Read pictures and prompts, padded on the right: what comes later changes nothing
        earlier."""
        encoder = self._encoder
        inputs = encoder.inputs_of(
            [row.prompt.text for row in new],
            [encoder.pictures_of(row.choices, row.prompt) for row in new],
            padding_side="right",
        )
        length_J = inputs.pop("attention_mask").sum(dim=1)
        first = len(self._rows)
        self._cache.join(slice(first, first + len(new)))
        positions_1S = torch.arange(inputs["input_ids"].shape[1], device=length_J.device)[None]
        output = encoder.model.model(
            **inputs,
            attention_mask={FULL: None},
            position_ids=positions_1S,
            past_key_values=self._cache,
            use_cache=True,
        )
        each_J = torch.arange(len(new), device=length_J.device)
        self._rows += new
        self._length_R = torch.cat([self._length_R.to(length_J.device), length_J])
        self._write(new, output.last_hidden_state[each_J, length_J - 1])

    def _step(self) -> None:
        """One more token of every row."""
        device = self._length_R.device
        ids_R1 = torch.tensor([[row.written[-1]] for row in self._rows], device=device)
        self._cache.step(self._length_R)
        longest = int(self._length_R.max()) + 1
        seen_RS = torch.arange(longest, device=device) <= self._length_R[:, None]
        output = self._language(
            inputs_embeds=self._language.embed_tokens(ids_R1),
            attention_mask={FULL: seen_RS[:, None, None]},
            position_ids=self._length_R[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        self._length_R = self._length_R + 1
        self._write(self._rows, output.last_hidden_state[:, 0])

    def _write(self, rows: Sequence[Row], state_RD: Tensor) -> None:
        """Choose each row's next token, after the state at its latest."""
        logits_RV = self._encoder.model.lm_head(state_RD)
        wide_RV = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
        scores_RV = logits_RV.clone()
        scores_RV[:, self._encoder.suppressed] = -torch.inf
        for place, row in enumerate(rows):
            if not row.written:
                scores_RV[place, self._end] = -torch.inf
        token_R = scores_RV.argmax(dim=-1)
        for place, row in enumerate(rows):
            allowed = None
            if row.heading is not None:
                ids_S = (row.prompt_S + row.written)[row.heading :]
                assert self._encoder.allowed is not None
                allowed = self._encoder.allowed.after(ids_S)
            if row.draws is not None:
                if allowed is not None:
                    kept_V = torch.full_like(scores_RV[place], -torch.inf)
                    kept_V[allowed] = scores_RV[place, allowed]
                    scores_RV[place] = kept_V
                token_R[place] = row.draws(token_R[:0], scores_RV[place : place + 1]).argmax()
            elif allowed is not None:
                token_R[place] = allowed[int(scores_RV[place, allowed].argmax())]
        chosen_R1 = token_R[:, None]
        logp_R = wide_RV.gather(-1, chosen_R1)[:, 0] - wide_RV.logsumexp(-1)
        for place, (row, token, logp) in enumerate(
            zip(rows, token_R.tolist(), logp_R.tolist(), strict=True)
        ):
            row.state_D = state_RD[place]
            row.ended = token == self._end
            if not row.ended:
                row.written.append(token)
                row.logp.append(logp)
                if self._encoder.allowed is not None and token == self._encoder.allowed.heading:
                    row.heading = len(row.prompt_S) + len(row.written)

    def _leave(self) -> Iterator[tuple[int, EncodedUser | EncodingError]]:
        """Rows that have ended, or have no room, give their place to the last."""
        for place in range(len(self._rows) - 1, -1, -1):
            row = self._rows[place]
            if row.ended or len(row.written) >= self._encoder.max_new_tokens:
                last = len(self._rows) - 1
                if place != last:
                    self._cache.move(last, place)
                    self._rows[place] = self._rows[last]
                    self._length_R[place] = self._length_R[last]
                self._rows.pop()
                self._length_R = self._length_R[:last]
                yield row.number, self._reading_of(row)

    def _reading_of(self, row: Row) -> EncodedUser | EncodingError:
        encoder, prompt = self._encoder, row.prompt
        response = encoder.response_of(row.written)
        try:
            if not prompts.has_profile(response):
                return encoder.encode(row.choices, seed=row.seed)
            ids_S = self._tokenizer(prompt.text + response)["input_ids"]
            if not row.ended or ids_S != row.prompt_S + row.written:
                return encoder.read_response(row.choices, prompt, response)
            head, _ = prompts.split_profile(response)
            of_profile = len(ids_S) - encoder.count_tokens(prompt.text + head)
            confidence = math.exp(math.fsum(row.logp[-of_profile:]) / of_profile)
            assert row.state_D is not None
            emb_D = row.state_D.float().cpu().numpy()
            check_reading(emb_D, confidence, encoder.user_emb_dim)
        except EncodingError as error:
            return error
        parsed = prompts.parse_response(response)
        return EncodedUser(
            profile=parsed.profile,
            transcript=response,
            user_emb_D=emb_D,
            confidence=confidence,
            likes=parsed.likes,
            dislikes=parsed.dislikes,
        )
