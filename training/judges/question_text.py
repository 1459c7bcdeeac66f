"""The paper's question to a judge (Table 2): four labelled pairs, then "User Preference
Prediction" for a new one.

The four pairs and the chain of thought are those of `ppd_model.prompts`; the new pair is shown
after them in the same form, without its label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ppd_model import prompts
from training.judges.judge import Question

ADDITIONAL_PROMPT = (
    "Finally, you are provided with a new pair of images, unlabeled by the user. Your task is to "
    "predict which image the user would prefer based on the previous examples you have seen. "
    "Format your response as follows:\n\nPrediction of user preference: [1 or 2]"
)
"""Table 2, "Additional Assistant Prompt for User Preference Prediction"."""

_TURN_OF_ASSISTANT = f"{prompts.TURN_END}\n{prompts.TURN_START}assistant\n"
_ANSWER = re.compile(r"prediction of user preference\W*(?:image\W*)?([12])\b", re.IGNORECASE)


@dataclass(frozen=True)
class QuestionText:
    """A question in Qwen's chat format, and its pictures in the order of the placeholders."""

    text: str
    images: list[Image.Image]

    def turns(self) -> dict[str, str]:
        """What the system and the user say, without the marks of the chat format."""
        turns = {}
        for turn in self.text.split(prompts.TURN_START)[1:]:
            role, _, said = turn.partition("\n")
            turns[role] = said.split(prompts.TURN_END)[0]
        return turns


def build_question(
    question: Question, special_tokens: Sequence[str] = prompts.CHAT_TOKENS
) -> QuestionText:
    """The question in words; its first picture is Image 1.

    What people typed goes in as data (`prompts.as_data`). Raises ValueError unless there are
    exactly four choices.
    """
    labelled = [prompts.LabelledCaption(each.caption, each.preferred) for each in question.choices]
    shown = prompts.build_prompt(labelled, "paper", special_tokens)
    pairs = [(each.image_0, each.image_1) for each in question.choices]
    caption = prompts.as_data(question.prompt, special_tokens)
    new_pair = (
        f"\n\n{ADDITIONAL_PROMPT}\n\nHere is the new pair: Here is the caption: {caption} "
        f"Here is Image 1: {prompts.IMAGE_TOKEN} Here is Image 2: {prompts.IMAGE_TOKEN}"
    )
    return QuestionText(
        text=shown.text.removesuffix(_TURN_OF_ASSISTANT) + new_pair + _TURN_OF_ASSISTANT,
        images=[
            *(pairs[pair][image] for pair, image in shown.images),
            question.first,
            question.second,
        ],
    )


def read_answer(response: str) -> int | None:
    """0 or 1 for the last prediction of a response; None where there is none.

    "[1 or 2]" repeated from the question is no prediction.
    """
    found = _ANSWER.findall(response.replace("[1 or 2]", ""))
    return int(found[-1]) - 1 if found else None
