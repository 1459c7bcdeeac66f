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
_DECIDES_TOO = ("solver", "guidance_interval", "format", "quality", "embed_prompt")
"""Jobs that were queued before there were any have none of these."""

_DECIDES_ONE_PICTURE = (set(_DECIDES) - {"seed", "n"}) | {"solver", "guidance_interval"}

Taste = tuple[str, str | None, float]
"""A taste (by pk; of one that is shared, for whom too), the profile version pinned for the job (by
pk), and the weight."""


def request_sha256(
    tenant: str, browser_pk: str | None, request: Mapping[str, Any], tastes: Sequence[Taste]
) -> str:
    """The same for two requests of one tenant that are to be one picture, and for no others.

    `browser_pk` is whose browser asks, None for a key: browsers share one tenant and nothing else.
    At strength 0 a person's taste does not decide, yet whose picture it is stays; a browser has
    one person. What is the same for all jobs of the moment (base model, adapter, encoder) is not
    in it: results name those.
    """
    decides: dict[str, Any] = {name: request[name] for name in _DECIDES}
    decides |= {name: request.get(name) for name in _DECIDES_TOO}
    if tastes and request["strength"] > 0:
        decides |= {"strength": request["strength"], "tastes": [list(taste) for taste in tastes]}
    elif browser_pk is None:
        decides["people"] = sorted(user_pk for user_pk, _, _ in tastes)
    whose = {"tenant": tenant, "browser": browser_pk}
    text = json.dumps({**decides, **whose}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def acceptable_sha256s(
    tenant: str, browser_pk: str | None, request: Mapping[str, Any], tastes: Sequence[Taste]
) -> list[str]:
    """Whose pictures a request may be given: its equals', and at strength 0 also nobody's."""
    own = request_sha256(tenant, browser_pk, request, tastes)
    if request["strength"] > 0:
        return [own]
    return list(dict.fromkeys([own, request_sha256(tenant, browser_pk, request, [])]))


def differ_in_taste_alone(
    one: Mapping[str, Any], index: int, other: Mapping[str, Any], other_index: int
) -> bool:
    """Whether the pictures of these numbers of two requests are one, but for whose taste it is."""
    seeds = one["seed"] + index, other["seed"] + other_index
    same = all(one.get(name) == other.get(name) for name in _DECIDES_ONE_PICTURE)
    return same and seeds[0] == seeds[1]
