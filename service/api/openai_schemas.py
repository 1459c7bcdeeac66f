"""Bodies and answers in OpenAI's shapes.

Its own fields that change nothing here are taken with every value it documents; those that this
service could not honour are taken with the value that asks for nothing (`background: opaque`), or
refused as unknown.
"""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from service.api.schemas import MAX_SEED, Body, GenerateIn, NotBlank, UserId

_SIZE = r"^(auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3})$"
_Prompt = Annotated[str, Field(min_length=1, max_length=32_000), NotBlank]
_MAX_PICTURES = 10

ImageFormat = Literal["png", "jpeg", "webp"]


class ImagesIn(Body):
    """What to make, in OpenAI's words; then what only this service knows, for `extra_body`."""

    prompt: _Prompt
    model: Annotated[
        str | None, Field(max_length=128, description="As GET /v1/models names it; or left out.")
    ] = None
    n: Annotated[int | None, Field(ge=1, le=_MAX_PICTURES)] = None
    size: Annotated[
        str | None,
        Field(
            pattern=_SIZE,
            description="auto, or WIDTHxHEIGHT: the nearest that the model makes, told in `size`.",
        ),
    ] = None
    response_format: Annotated[
        Literal["url", "b64_json"] | None,
        Field(description="b64_json is the default; url opens without a key for an hour."),
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
    output_format: Annotated[
        ImageFormat | None, Field(description="Of the pictures' files; png is the default.")
    ] = None
    output_compression: Annotated[
        int | None,
        Field(ge=0, le=100, description="Quality of jpeg and webp, 100 by default; png has none."),
    ] = None
    stream: Annotated[
        bool | None, Field(description="Answer with server-sent events as pictures come about.")
    ] = None
    partial_images: Annotated[
        int | None,
        Field(ge=0, le=3, description="At most so many previews of each picture in a stream."),
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
    def file_format(self) -> ImageFormat:
        return self.output_format or "png"

    @property
    def file_quality(self) -> int | None:
        """1 to 100; None for what has no quality to choose."""
        if self.file_format == "png":
            return None
        return 100 if self.output_compression is None else max(1, self.output_compression)

    @property
    def sides_px(self) -> tuple[int, int] | None:
        """Width and height, if they were named."""
        named = re.fullmatch(r"(\d+)x(\d+)", self.size or "")
        return (int(named[1]), int(named[2])) if named else None


class JobIn(GenerateIn):
    """The same as a request of our own, with OpenAI's room for long prompts and many pictures."""

    max_total_steps: ClassVar[int] = 20 * _MAX_PICTURES

    prompt: _Prompt
    n: Annotated[int, Field(ge=1, le=_MAX_PICTURES)] = 1


class InputTokensOut(BaseModel):
    """Of what was sent: a prompt has no pictures here."""

    text_tokens: int
    image_tokens: Literal[0] = 0


class OutputTokensOut(BaseModel):
    """Of what was made."""

    image_tokens: int
    text_tokens: Literal[0] = 0


class UsageOut(BaseModel):
    """What the model read of the prompt, and the places of its latent image that it filled."""

    input_tokens: int
    input_tokens_details: InputTokensOut
    output_tokens: int
    output_tokens_details: OutputTokensOut
    total_tokens: int


def usage_out(read: int, made: int) -> UsageOut:
    """So many tokens of text read, so many of pictures made."""
    return UsageOut(
        input_tokens=read,
        input_tokens_details=InputTokensOut(text_tokens=read),
        output_tokens=made,
        output_tokens_details=OutputTokensOut(image_tokens=made),
        total_tokens=read + made,
    )


class OpenAIImageOut(BaseModel):
    """A picture: its address, or itself."""

    url: str | None = None
    b64_json: str | None = None


class ImagesOut(BaseModel):
    """The pictures. `ppd` is this service's own: the job, and the result of GET /jobs/{id}."""

    created: int
    data: list[OpenAIImageOut]
    background: Literal["opaque"] = "opaque"
    output_format: ImageFormat
    size: str
    usage: UsageOut | None = None
    ppd: dict[str, Any]


class _StreamedOut(BaseModel):
    """What both events of a stream have. `image_index`: of which picture, where there are more."""

    b64_json: str
    background: Literal["opaque"] = "opaque"
    created_at: int
    output_format: ImageFormat
    quality: Literal["auto"] = "auto"
    size: str
    image_index: int | None = None


class PartialImageOut(_StreamedOut):
    """A preview of a picture that is being made, enlarged to its size."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    partial_image_index: int


class CompletedOut(_StreamedOut):
    """A picture. `ppd` is this service's own: the job, and the result of GET /jobs/{id}."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    usage: UsageOut | None = None
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
