"""Which requests for pictures are equal: in what decides the pictures, and in whose they are."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

_DECIDES = (
    "prompt",
    "negative_prompt",
    "seed",
    "n",
    "width",
    "height",
    "steps",
    "guidance_scale",
)

Taste = tuple[str, str | None, float]
"""A person (by pk), the profile version pinned for the job (by pk), and the weight."""


def request_sha256(
    tenant: str, browser_pk: str | None, request: Mapping[str, Any], tastes: Sequence[Taste]
) -> str:
    """The same for two requests of one tenant that are to be one picture, and for no others.

    `browser_pk` is whose browser asks, None for a key: browsers share one tenant and nothing else.
    At strength 0 nobody's taste decides, as without a user. What is the same for all jobs of the
    moment (base model, adapter, encoder) is not in it: results name those.
    """
    decides: dict[str, Any] = {name: request[name] for name in _DECIDES}
    if tastes and request["strength"] > 0:
        decides |= {"strength": request["strength"], "tastes": [list(taste) for taste in tastes]}
    whose = {"tenant": tenant, "browser": browser_pk}
    text = json.dumps({**decides, **whose}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
