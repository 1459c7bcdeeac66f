"""A judge on this machine: the user encoder's own LLaVA-OneVision, asked in words.

Legend: Q questions, S tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ppd_model import prompts
from ppd_model.user_encoder import UserEncoder
from training.judges.judge import JudgeError, Question
from training.judges.question_text import build_question, read_answer


class LlavaJudge:
    """Greedy, so that the same question has the same answer.

    mini's VLM was never taught this question: on mini the judge's accuracy says what to make of
    it.
    """

    def __init__(self, encoder: UserEncoder, max_new_tokens: int | None = None) -> None:
        self.encoder = encoder
        self.max_new_tokens = max_new_tokens or encoder.max_new_tokens
        self.identity = f"{encoder.encoder_version.split('.')[0]}, greedy"
        self._tokenizer = encoder.processor.tokenizer
        added = {*self._tokenizer.get_added_vocab(), *self._tokenizer.all_special_tokens}
        self._special_tokens = tuple(sorted({*added, *prompts.CHAT_TOKENS}))

    def prefer(self, question: Question) -> int | None:
        """As `Judge.prefer`. Raises JudgeError when the question does not fit the model."""
        return self.prefer_each([question])[0]

    @torch.inference_mode()
    def prefer_each(self, questions: Sequence[Question]) -> list[int | None]:
        """As `JudgeOfMany.prefer_each`, left padded; answers are those of each alone, but for
        rounding."""
        asked = [build_question(question, self._special_tokens) for question in questions]
        model, processor = self.encoder.model, self.encoder.processor
        # Nested, one list for each question: given flat, each picture would be cut into tiles.
        batch = processor(
            text=[each.text for each in asked],
            images=[[image.convert("RGB") for image in each.images] for each in asked],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        found = int((batch["input_ids"] == model.config.image_token_id).sum())
        expected = sum(len(each.images) for each in asked) * self.encoder.tokens_per_image
        if found != expected:
            raise JudgeError(f"{found} image tokens in {len(asked)} questions, expected {expected}")
        dtype = model.model.image_newline.dtype
        inputs = {
            name: value.to(model.device, dtype if value.is_floating_point() else None)
            for name, value in batch.items()
            if name not in ("token_type_ids", "num_image_tokens")
        }
        blocked = [model.config.image_token_id, model.config.video_token_id]
        ids_QS = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=self._tokenizer.convert_tokens_to_ids(prompts.TURN_END),
            suppress_tokens=[token for token in blocked if token < model.lm_head.out_features],
        )
        answers_QS = ids_QS[:, inputs["input_ids"].shape[1] :]
        said = self._tokenizer.batch_decode(answers_QS, skip_special_tokens=True)
        return [read_answer(answer) for answer in said]
