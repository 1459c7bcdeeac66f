"""Bodies and answers in OpenAI's shapes.

Its own fields that change nothing here are taken with every value it documents; those that this
service could not honour are taken with the value that asks for nothing (`output_format: png`), or
refused as unknown.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.api.schemas import MAX_SEED, Body, NotBlank, UserId

_SIZE = r"^(auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3})$"


class ImagesIn(Body):
    """What to make, in OpenAI's words; then what only this service knows, for `extra_body`."""

    prompt: Annotated[str, Field(min_length=1, max_length=1000), NotBlank]
    model: Annotated[
        str | None, Field(max_length=128, description="As GET /v1/models names it; or left out.")
    ] = None
    n: Annotated[int | None, Field(ge=1, le=4)] = None
    size: Annotated[
        str | None, Field(pattern=_SIZE, description="auto, or WIDTHxHEIGHT that the model makes.")
    ] = None
    response_format: Annotated[
        Literal["url", "b64_json"] | None,
        Field(description="url (the default) opens without a key for an hour."),
    ] = None
    user: Annotated[
        UserId | None, Field(description="The person in whose taste the pictures are made.")
    ] = None

    quality: Annotated[
        Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None,
        Field(description="Changes nothing."),
    ] = None
    style: Annotated[Literal["vivid", "natural"] | None, Field(description="Changes nothing.")] = (
        None
    )
    moderation: Annotated[
        Literal["auto", "low"] | None, Field(description="Changes nothing: nothing is moderated.")
    ] = None
    complexity: Annotated[
        Literal["low", "medium", "high"] | None, Field(description="Changes nothing.")
    ] = None
    safety_identifier: Annotated[
        str | None, Field(max_length=512, description="Changes nothing, and is not stored.")
    ] = None
    background: Annotated[
        Literal["auto", "opaque"] | None, Field(description="Pictures are opaque.")
    ] = None
    output_format: Annotated[Literal["png"] | None, Field(description="Pictures are PNG.")] = None
    output_compression: Annotated[
        int | None, Field(ge=0, le=100, description="Changes nothing: PNG loses nothing.")
    ] = None
    stream: Annotated[Literal[False] | None, Field(description="Answers are not streamed.")] = None
    partial_images: Annotated[
        int | None, Field(ge=0, le=0, description="Answers are not streamed.")
    ] = None

    strength: Annotated[
        float, Field(ge=0, le=1, description="How much of the person's taste; 0 is none.")
    ] = 1.0
    negative_prompt: Annotated[str, Field(max_length=1000)] = ""
    steps: Annotated[int | None, Field(ge=1, le=50)] = None
    guidance_scale: Annotated[float, Field(ge=0, le=20)] = 4.0
    seed: Annotated[int | None, Field(ge=0, le=MAX_SEED)] = None
    fresh: Annotated[
        bool,
        Field(description="Compute it, also where an equal request's pictures could be given."),
    ] = False

    @property
    def sides_px(self) -> tuple[int, int] | None:
        """Width and height, if they were named."""
        named = re.fullmatch(r"(\d+)x(\d+)", self.size or "")
        return (int(named[1]), int(named[2])) if named else None


class OpenAIImageOut(BaseModel):
    """A picture: its address, or itself."""

    url: str | None = None
    b64_json: str | None = None


class ImagesOut(BaseModel):
    """The pictures. `ppd` is this service's own: the job, and the result of GET /jobs/{id}."""

    created: int
    data: list[OpenAIImageOut]
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png"] = "png"
    size: str
    ppd: dict[str, Any]


class ModelOut(BaseModel):
    """A model. `created` is 0: the weights do not say."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: Literal["ppd"] = "ppd"


class ModelsOut(BaseModel):
    """The models: the one that is served."""

    object: Literal["list"] = "list"
    data: list[ModelOut]
