"""Bodies, strictly read, and the shapes of answers."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from ppd_model.pictures.writing import DEFAULT_QUALITY, Format
from ppd_model.types import Solver
from ppd_model.words import INVISIBLE, is_blank
from service.core.auth import BROWSER_TENANT, TASTE, USER_ID, KeyScope
from service.core.messages import JobStatus
from service.core.pictures import MAX_PICTURE_BYTES
from service.core.quiz import CHOICES_PER_EMBEDDING

MAX_CHOICES_PER_POST = 16
MAX_SEED = 2**32 - 1
MAX_TOTAL_STEPS = 120
"""Bound on n x steps of one request."""


def _not_blank(text: str) -> str:
    if is_blank(text):
        raise ValueError("must not be blank: nothing in it shows")
    return text


def _takes_keys(tenant: str) -> str:
    if tenant == BROWSER_TENANT:
        raise ValueError("is the tenant of browser sessions, which has no keys")
    return tenant


@dataclass(frozen=True)
class _NotBlank(AfterValidator):
    """Refuses text of which nothing shows: spaces, and characters that are invisible.

    The schema says so too, of characters that every dialect of patterns can name, and that NUL is
    no text at all.
    """

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        ranges = (f"\\u{a:04x}-\\u{b:04x}" for a, b in INVISIBLE if b <= 0xFFFF)
        shows = r"[^\s\u0000-\u001f\u007f-\u009f" + "".join(ranges) + "]"
        return {**handler(schema), "pattern": rf"^[^\u0000]*{shows}[^\u0000]*$"}


NotBlank = _NotBlank(_not_blank)
UserId = Annotated[str, Field(pattern=USER_ID)]


class Body(BaseModel):
    """A request body: no coercion, no unknown field, no number that is not finite."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class ChoiceIn(Body):
    """An answer to a pair of the pool, to the client's own, or to two pictures made for it."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["pair_id"], "properties": {"pair_id": {"type": "string"}}},
                {
                    "required": ["caption", "images"],
                    "properties": {"caption": {"type": "string"}, "images": {"type": "array"}},
                },
                {"required": ["image_ids"], "properties": {"image_ids": {"type": "array"}}},
            ]
        }
    )

    pair_id: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    caption: Annotated[
        Annotated[str, Field(min_length=1, max_length=300), NotBlank] | None, Field()
    ] = None
    images: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None,
        Field(
            min_length=2,
            max_length=2,
            description="Two pictures: the files in base64, of "
            f"{MAX_PICTURE_BYTES // 2**20} MiB each before that.",
        ),
    ] = None
    preferred: Annotated[
        Annotated[int, Field(ge=0, le=1)] | None,
        Field(description="Index into the pair's `images`; null when neither is preferred."),
    ]

    image_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]] | None,
        Field(
            min_length=2,
            max_length=2,
            description="Two pictures of one prompt that the service made for this caller.",
        ),
    ] = None
    blind: Annotated[
        bool, Field(description="Of image_ids: nothing told which picture was which.")
    ] = False

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = {
            name
            for name in ("pair_id", "caption", "images", "image_ids")
            if getattr(self, name) is not None
        }
        if given not in ({"pair_id"}, {"caption", "images"}, {"image_ids"}):
            raise ValueError("takes one of pair_id, caption and images, or image_ids")
        if self.blind and self.image_ids is None:
            raise ValueError("blind is said of image_ids only")
        if self.image_ids is not None and len(set(self.image_ids)) != 2:
            raise ValueError("image_ids names a picture twice")
        return self


class PreferencesIn(Body):
    """Answers, in the order in which they were given."""

    choices: Annotated[list[ChoiceIn], Field(min_length=1, max_length=MAX_CHOICES_PER_POST)]

    @model_validator(mode="after")
    def _no_pair_twice(self) -> Self:
        ids = [choice.pair_id for choice in self.choices if choice.pair_id is not None]
        ids += [" ".join(sorted(choice.image_ids)) for choice in self.choices if choice.image_ids]
        if len(set(ids)) != len(ids):
            raise ValueError("the same pair is answered twice")
        return self


class LikedIn(Body):
    """A picture that a person likes. `caption`: what it shows, never what is liked about it."""

    image: Annotated[str, Field(min_length=1, description="The file in base64, as own pairs'.")]
    caption: Annotated[
        Annotated[str, Field(min_length=1, max_length=300), NotBlank] | None, Field()
    ] = None


class LikesIn(Body):
    """Pictures that a person likes, without others that they like less."""

    liked: Annotated[
        list[LikedIn], Field(min_length=CHOICES_PER_EMBEDDING, max_length=MAX_CHOICES_PER_POST)
    ]


class AnswerIn(Body):
    """Another answer to a pair that was answered."""

    preferred: Annotated[
        Annotated[int, Field(ge=0, le=1)] | None,
        Field(description="Index into the answer's `images`; null when neither is preferred."),
    ]


class ContributionIn(Body):
    """Whether somebody gives their answers for training."""

    contribute: bool


class ContributionOut(BaseModel):
    """Whether this person gives their answers, earlier ones too, for training, and since when."""

    user_id: str
    contribute: bool
    since: datetime | None


class AnswersIn(Body):
    """Which answers count."""

    since: Annotated[
        Annotated[AwareDatetime, Field(strict=False)] | None,
        Field(description="Answers given before are left out of the profile; null: all count."),
    ]

    @field_validator("since")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        try:
            return value and value.astimezone(UTC)
        except OverflowError:
            raise ValueError("is no time of this calendar") from None


class ProfileIn(Body):
    """A profile in a person's own words."""

    text: Annotated[str, Field(min_length=1, max_length=2000), NotBlank]


DiffusionTime = Annotated[float, Field(ge=0, le=1)]


Taste = Annotated[
    Annotated[str, Field(pattern=TASTE)] | None,
    Field(description="Which of the person's tastes; left out: the first."),
]
TasteCode = Annotated[
    Annotated[str, Field(min_length=1, max_length=64)] | None,
    Field(description="A code under which somebody shares a taste, in the place of a person's."),
]


class BlendIn(Body):
    """One of several tastes that are mixed: a person's, or one that is shared."""

    user_id: UserId | None = None
    taste: Taste = None
    taste_code: TasteCode = None
    weight: Annotated[float, Field(gt=0, le=1000)]

    @model_validator(mode="after")
    def _one_taste(self) -> Self:
        if (self.user_id is None) is (self.taste_code is None):
            raise ValueError("takes user_id or taste_code, one of the two")
        if self.taste is not None and self.user_id is None:
            raise ValueError("taste is one of user_id's")
        return self


class GenerateIn(Body):
    """What to make, and in whose taste."""

    max_total_steps: ClassVar[int] = MAX_TOTAL_STEPS

    prompt: Annotated[str, Field(min_length=1, max_length=1000), NotBlank]
    user_id: Annotated[
        UserId | None,
        Field(description="Whose taste; with taste_code only for whom the pictures are."),
    ] = None
    taste: Taste = None
    taste_code: TasteCode = None
    blend: Annotated[list[BlendIn] | None, Field(min_length=1, max_length=8)] = None
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    negative_prompt: Annotated[str, Field(max_length=1000)] = ""
    n: Annotated[int, Field(ge=1, le=4)] = 1
    width: Annotated[int | None, Field(ge=1, le=4096)] = None
    height: Annotated[int | None, Field(ge=1, le=4096)] = None
    steps: Annotated[
        int | None, Field(ge=1, le=50, description="The model's own number where left out.")
    ] = None
    guidance_scale: Annotated[float, Field(ge=0, le=20)] = 4.0
    solver: Annotated[
        Solver | None,
        Field(description="What makes a step; the model's own where left out."),
    ] = None
    guidance_interval: Annotated[
        list[DiffusionTime] | None,
        Field(
            min_length=2,
            max_length=2,
            description="Guidance acts at diffusion times above the first and up to the second, "
            "1 being noise; the model's own where left out.",
        ),
    ] = None
    seed: Annotated[int | None, Field(ge=0, le=MAX_SEED)] = None
    format: Annotated[Format, Field(description="Of the pictures' files.")] = "png"
    quality: Annotated[
        int | None,
        Field(ge=1, le=100, description=f"Of jpeg and webp; {DEFAULT_QUALITY} if left out."),
    ] = None
    embed_prompt: Annotated[
        bool, Field(description="Say the prompt inside the files, where anybody can read it.")
    ] = False
    fresh: Annotated[
        bool,
        Field(description="Compute it, also where an equal request's pictures could be given."),
    ] = False

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.format == "png" and self.quality is not None:
            raise ValueError("quality is that of jpeg and webp: a png loses nothing")
        if self.user_id is not None and self.blend is not None:
            raise ValueError("takes user_id or blend, not both")
        if self.taste_code is not None and self.blend is not None:
            raise ValueError("takes taste_code or blend, not both")
        if self.taste is not None and (self.user_id is None or self.taste_code is not None):
            raise ValueError("taste is one of user_id's, without a taste_code")
        parts = [(part.user_id, part.taste, part.taste_code) for part in self.blend or ()]
        if len(set(parts)) != len(parts):
            raise ValueError("blend names a taste twice")
        if self.n * (self.steps or 1) > self.max_total_steps:
            raise ValueError(f"n x steps is at most {self.max_total_steps}")
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if low > high:
                raise ValueError("guidance_interval begins above its end")
        if self.seed is not None and self.seed + self.n - 1 > MAX_SEED:
            raise ValueError(f"seed + n - 1 is at most {MAX_SEED}")
        return self


class KeyIn(Body):
    """What a key is for, and what it opens."""

    name: Annotated[str, Field(min_length=1, max_length=128), NotBlank]
    tenant: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9._-]{1,64}$",
            description="Whose users, jobs and pictures it opens; made by its first key.",
            json_schema_extra={"not": {"const": BROWSER_TENANT}},
        ),
        AfterValidator(_takes_keys),
    ]
    scope: Annotated[
        KeyScope, Field(description="admin opens the routes under /admin as well.")
    ] = "client"


class FieldErrorOut(BaseModel):
    """One fault of a request."""

    pointer: str
    message: str


class Problem(BaseModel):
    """RFC 9457, with a stable code."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldErrorOut]
    request_id: str | None


def _problem_response() -> dict[str, Any]:
    """The schema stands inline: a reference into its own definitions would lead nowhere."""
    schema = Problem.model_json_schema()
    schema["properties"]["errors"]["items"] = schema.pop("$defs")["FieldErrorOut"]
    content = {"application/problem+json": {"schema": schema}}
    return {"description": "Refused; see `code`.", "content": content}


_PROBLEM = _problem_response()
PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": _PROBLEM, "422": _PROBLEM, "503": _PROBLEM}


class PairImageOut(BaseModel):
    """A picture of a pair."""

    url: str
    alt: str


class PairOut(BaseModel):
    """A pair of the pool."""

    pair_id: str
    caption: str
    images: list[PairImageOut]


class QuizPairOut(PairOut):
    """A pair to ask. `order`: the indices of `images` in the order to show them in.

    An answer's `preferred` is always an index into `images`, wherever the picture was shown.
    """

    order: list[int]


class PairsOut(BaseModel):
    """A page of the pool."""

    results: list[PairOut]
    next: str | None


class QuizOut(BaseModel):
    """What to ask next."""

    needed: int
    answered: int
    pairs: list[QuizPairOut]
    ahead: list[QuizPairOut]
    """What may come once the first of `pairs` is answered: pictures worth fetching now."""


class ProfileOut(BaseModel):
    """A readable profile."""

    text: str
    likes: list[str]
    dislikes: list[str]
    not_understood: list[str] = []
    """Words of a given text that the model does not know, and passes over."""
    answers_used: int
    """How many answers it was read from; 0 for a text alone."""
    confidence: Annotated[float | None, Field(exclude_if=lambda value: value is None)] = None
    """The chance that a picture made with this taste pleases more than the same without it. Only
    where that was measured on other people: with the service's own model, for four to sixteen
    answers about the quiz's pairs, without words of one's own."""
    confidence_after_four_more: Annotated[
        float | None, Field(exclude_if=lambda value: value is None)
    ] = None
    """What is to be expected of it after four more answers, likewise."""


class ErrorOut(BaseModel):
    """Why something failed."""

    code: str
    detail: str


class WarningOut(BaseModel):
    """What was not read of the text in `field`, which is a JSON pointer into the body.

    `words`: the first of those that the model does not know, `count` of which there are.
    """

    code: Literal["unknown_words", "caption_truncated", "caption_unread"]
    field: str
    detail: str
    words: list[str] | None = None
    count: int | None = None


class PreferencesStateOut(BaseModel):
    """Where a user's profile stands. `warnings`: of captions that were sent."""

    user_id: str
    taste: str | None = None
    profile_version: int | None
    status: Literal["collecting", "encoding", "ready", "failed"]
    choices: int
    needed: int
    profile: ProfileOut | None = None
    error: ErrorOut | None = None
    warnings: list[WarningOut] = []
    links: dict[str, str]


class AgainstOut(BaseModel):
    """A picture of the pool: `image` is an index into its pair's `images`."""

    pair_id: str
    image: int
    by: Literal["caption", "picture"]


class ChoiceOut(BaseModel):
    """A stored answer. `images` are the pictures' URLs; `pair_id` null for the client's own.

    `counts`: whether a profile made now would be read from it. `origin`: a pair of the pool, one of
    the client's own, two pictures that the service made, or one that is liked alone. Of that
    `against` says which picture of the pool it is set against, and by what its caption was found:
    null until it was read. Nobody compared the two.
    """

    id: int
    origin: Literal["pool", "own", "made", "liked"]
    against: AgainstOut | None = None
    pair_id: str | None
    caption: str
    images: list[str]
    preferred: int | None
    created_at: datetime
    counts: bool


class ProfileVersionOut(BaseModel):
    """A version of a profile."""

    version: int
    source: Literal["generated", "edited", "reencoded", "written"]
    status: Literal["encoding", "ready", "failed", "superseded"]
    text: str | None
    likes: list[str]
    dislikes: list[str]
    answers_used: int
    encoder_version: str | None
    created_at: datetime


class PreferencesOut(BaseModel):
    """All answers, the current profile and its versions."""

    user_id: str
    taste: str | None = None
    status: Literal["collecting", "encoding", "ready", "failed"]
    profile_version: int | None
    answered: int
    needed: int
    since: datetime | None
    contribute: bool
    """Whether this person gives their answers for training: `PUT /users/{id}/contribution`."""
    choices: list[ChoiceOut]
    profile: ProfileOut | None
    profiles: list[ProfileVersionOut]
    profiles_next: str | None = None
    """The `cursor` for `GET /users/{id}/profiles` that goes on where these end; null at the end."""


class ProfilesOut(BaseModel):
    """A page of versions, newest first."""

    results: list[ProfileVersionOut]
    next: str | None


class JobOut(BaseModel):
    """A job. `progress` while it runs; `result` or `error` when it has ended.

    While it waits, `position` is how many jobs are begun before it, and `expected_wait_s` a guess
    of the seconds until it is: null while nothing was measured.
    """

    id: str
    kind: Literal["generate", "encode"]
    status: JobStatus
    seq: int
    created_at: datetime
    position: int | None = None
    expected_wait_s: float | None = None
    progress: dict[str, int] | None = None
    result: dict[str, Any] | None = None
    error: ErrorOut | None = None
    links: dict[str, str]


class JobsOut(BaseModel):
    """A page of jobs, newest first."""

    results: list[JobOut]
    next: str | None


class ErasedJobsOut(BaseModel):
    """How much was erased with these jobs. Nobody can reach it any more."""

    jobs: int
    images: int


class EndedJobsOut(BaseModel):
    """The ids of jobs that were canceled, and what was erased where that was asked for."""

    canceled: list[str]
    erased: ErasedJobsOut | None = None


class GalleryImageOut(BaseModel):
    """A picture that was made for a user."""

    id: str
    url: str
    job_id: str
    prompt: str
    seed: int
    strength: float
    personalization_applied: bool
    profile_version: int | None
    created_at: datetime


class GalleryOut(BaseModel):
    """A page of pictures, newest first."""

    results: list[GalleryImageOut]
    next: str | None


class KeyOut(BaseModel):
    """A key, without the key itself: of that only a hash is kept."""

    id: str
    tenant: str
    scope: KeyScope
    name: str
    created_at: datetime
    revoked_at: datetime | None


class KeyMadeOut(KeyOut):
    """A new key. `key` is shown here once; null when the request is a repetition."""

    key: str | None


class KeysOut(BaseModel):
    """All keys."""

    results: list[KeyOut]


class TasteOut(BaseModel):
    """One of a person's tastes; the first has no name. `answers` counts ties too."""

    taste: str | None
    status: Literal["collecting", "encoding", "ready", "failed"]
    profile_version: int | None
    answers: int
    created_at: datetime | None


class TastesOut(BaseModel):
    """A person's tastes, the first one first."""

    results: list[TasteOut]
    most: int
    """So many further ones a person may have."""


class ShareIn(Body):
    """Which taste is to be shared."""

    taste: Taste = None


class ShareOut(BaseModel):
    """A shared taste. `code` is null where the service cannot say it again."""

    id: str
    taste: str | None
    code: str | None
    created_at: datetime


class SharesOut(BaseModel):
    """All codes of a person."""

    results: list[ShareOut]


class ErasedOut(BaseModel):
    """The receipt of an erasure: how much is gone.

    `scrubbed`: the bytes are out of the database's log too. False when somebody was reading: then
    that follows within a minute of the last such reader. On PostgreSQL always false: no query finds
    them, but the server's operator decides when their bytes are overwritten. `pending_images`:
    pictures that nobody can reach any more and whose bytes are still to be deleted, within minutes
    of the store's being well. `cache_forgotten`: the cache dropped its embeddings; else it is asked
    again until it has.
    """

    user_id: str
    taste: str | None = None
    erased: dict[str, int]
    pending_images: int
    cache_forgotten: bool
    scrubbed: bool
