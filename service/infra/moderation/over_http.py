"""A service that answers as OpenAI's moderations do: OpenAI's own, or one of the operator's."""

import base64
import ssl
from typing import Any

import httpx

from service.core.ports import RefusalReason

_REASONS: tuple[tuple[str, RefusalReason], ...] = (
    ("sexual/minors", "minors"),
    ("sexual", "sexual"),
    ("violence", "violence"),
    ("hate", "hate"),
    ("harassment", "harassment"),
    ("self-harm", "self_harm"),
    ("illicit", "illicit"),
)
"""By the beginning of a category's name; what none of these begins is `other`."""


class HttpModeration:
    """Asks for each text and each picture; what is flagged is refused.

    No redirect is followed, and whatever is no answer in this shape is an OSError.
    """

    def __init__(self, url: str, *, key: str | None, model: str | None, timeout_s: float) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._model = {"model": model} if model else {}
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context()

    async def refuses_text(self, text: str) -> RefusalReason | None:
        return await self._ask(text)

    async def refuses_picture(self, data: bytes, media_type: str) -> RefusalReason | None:
        url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        return await self._ask([{"type": "image_url", "image_url": {"url": url}}])

    async def _ask(self, content: Any) -> RefusalReason | None:
        try:
            async with httpx.AsyncClient(verify=self._tls, timeout=self._timeout_s) as client:
                answer = await client.post(
                    self._url, json={**self._model, "input": content}, headers=self._headers
                )
            answer.raise_for_status()
            return _refusal(answer.json()["results"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Without its message, which may quote what was sent.
            raise OSError(f"moderation over HTTP failed: {type(error).__name__}") from None


def _refusal(results: Any) -> RefusalReason | None:
    flagged = [result for result in results if _is_true(result["flagged"])]
    if not flagged:
        return None
    named = [name for result in flagged for name, on in result["categories"].items() if on]
    for beginning, reason in _REASONS:
        if any(name.startswith(beginning) for name in named):
            return reason
    return "other"


def _is_true(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value
