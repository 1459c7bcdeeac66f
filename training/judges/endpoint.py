"""A judge behind any endpoint that speaks OpenAI's chat completions, with pictures as data URLs.

The paper asks GPT-4o mini at temperature 1 without nucleus sampling (B.3). Where the endpoint is,
which model it shall use and with which key is read from the environment in one place,
`EndpointSettings.read`; the key is read from nowhere else, so that it never lies beside results.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import openai
from PIL import Image

from ppd_model import prompts
from training.judges.judge import JudgeError, Question
from training.judges.question_text import QuestionText, build_question, read_answer

PictureFormat = Literal["png", "jpeg"]
"""How pictures are sent: without a loss, or as the paper's authors send them."""
JPEG_QUALITY = 95
URL, MODEL, KEY = "PPD_JUDGE_URL", "PPD_JUDGE_MODEL", "PPD_JUDGE_KEY"


@dataclass(frozen=True)
class EndpointSettings:
    """Where and how to ask. base_url ends before "/chat/completions"; timeout_s holds for each
    attempt."""

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    temperature: float = 1.0
    pictures: PictureFormat = "png"
    max_tokens: int = 2048
    timeout_s: float = 120.0
    attempts: int = 6

    @classmethod
    def read(
        cls,
        environment: Mapping[str, str] = os.environ,
        *,
        base_url: str | None = None,
        model: str | None = None,
        **options: Any,
    ) -> EndpointSettings:
        """What is given, else the environment's. Raises ValueError that names what is missing."""
        url = base_url or environment.get(URL, "")
        name = model or environment.get(MODEL, "")
        missing = [key for key, value in ((URL, url), (MODEL, name)) if not value]
        if missing:
            raise ValueError(f"no endpoint to ask: give {' and '.join(missing)}")
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{URL} is {url!r}, expected http://... or https://...")
        return cls(url.rstrip("/"), name, environment.get(KEY, ""), **options)


class EndpointJudge:
    """Asks an endpoint; safe to use from several threads. Close it when done.

    What may pass (a busy endpoint, a lost connection) is tried again by the client, after the wait
    that the endpoint asks for or a growing one.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self.identity = f"{settings.model} at temperature {settings.temperature:g}"
        if settings.pictures != "png":
            self.identity += f", pictures as {settings.pictures}"
        self._client = openai.OpenAI(
            base_url=settings.base_url,
            api_key=settings.key or "none",
            organization="",
            project="",
            timeout=settings.timeout_s,
            max_retries=settings.attempts - 1,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )

    def __enter__(self) -> EndpointJudge:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def prefer(self, question: Question) -> int | None:
        """As `Judge.prefer`. Raises JudgeError when the endpoint refuses or stays silent."""
        messages = messages_of(build_question(question), self.settings.pictures)
        return read_answer(self._ask(messages))

    def _ask(self, messages: list[Any]) -> str:
        settings = self.settings
        try:
            answer = self._client.chat.completions.with_raw_response.create(
                model=settings.model,
                messages=messages,
                temperature=settings.temperature,
                top_p=1.0,
                max_tokens=settings.max_tokens,
                extra_headers={} if settings.key else {"Authorization": openai.omit},
            )
        except openai.APIStatusError as error:
            trouble = f"status {error.status_code}: {error.response.text[:300]}"
            raise JudgeError(f"{settings.base_url} refuses: {trouble}") from error
        except openai.APIConnectionError as error:
            trouble = f"{type(error.__cause__ or error).__name__}: {error.__cause__ or error}"
            raise JudgeError(
                f"{settings.base_url} gave no answer in {settings.attempts} attempts: {trouble}"
            ) from error
        return _text_of(answer.text)


def messages_of(question: QuestionText, pictures: PictureFormat = "png") -> list[dict[str, Any]]:
    """The question as messages: text and pictures in turn."""
    turns = question.turns()
    content: list[dict[str, Any]] = []
    pieces = turns["user"].split(prompts.IMAGE_TOKEN)
    assert len(pieces) == len(question.images) + 1
    for place, piece in enumerate(pieces):
        if piece.strip():
            content.append({"type": "text", "text": piece})
        if place < len(question.images):
            url = {"url": data_url(question.images[place], pictures)}
            content.append({"type": "image_url", "image_url": url})
    return [
        {"role": "system", "content": turns["system"]},
        {"role": "user", "content": content},
    ]


def data_url(image: Image.Image, pictures: PictureFormat = "png") -> str:
    buffer = io.BytesIO()
    options = {"quality": JPEG_QUALITY, "subsampling": 0} if pictures == "jpeg" else {}
    image.convert("RGB").save(buffer, pictures.upper(), **options)
    return f"data:image/{pictures};base64," + base64.b64encode(buffer.getvalue()).decode()


def _text_of(answer: str) -> str:
    """The first choice's text; "" where the answer has no text that could be read.

    A model that answers nonsense is a matter of its accuracy, not of the connection.
    """
    try:
        text = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
    return text if isinstance(text, str) else ""
