"""The one settings class. Read it only where a process is wired."""

import contextlib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from service.core.placement import Place
from service.core.ports import ModeratedPlace
from service.core.turns import PART_OF_SESSIONS

_REDIS = re.compile(r"rediss?://.|unix://.")
_S3_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+/?")
_HTTP_URL = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(/[^\s?#]*)?")
_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+")
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
SECRETS_DIR = Path("/run/secrets")
"""A file here named after a setting (ppd_session_secret) holds it, unless the environment does."""
_PREFIX = "PPD_"
_DEVICE = re.compile(r"cpu|cuda(:(0|[1-9][0-9]?))?")


class Settings(BaseSettings):
    """Every setting, from the environment as PPD_<NAME>. `read` looks into /run/secrets too."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # it may be a password
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    allowed_hosts: str = ""
    """Names under which the service answers, commas between; *.example is all below one, * all
    there are. The default is localhost, 127.0.0.1 and ::1 where it listens on one of these, else
    all; the name in PPD_PUBLIC_URL is always one of them."""
    public_url: str | None = None
    """https://pictures.example, where clients reach the service: links that leave it are made of
    this. The default is the host that a request named."""
    trusted_proxies: str = ""
    """Addresses or networks, with commas between: their X-Forwarded-Proto and -For are believed.
    By default nobody's are."""
    cors_origins: str = ""
    """Sites whose scripts may call the API with a key: https://shop.example, with commas between,
    or * for all. By default none may. Cookies are never taken from another site."""
    data_dir: Path = Path("data")
    database_url: str | None = Field(default=None, repr=False)
    """postgresql://...; the default is the SQLite file `ppd.db` in the data folder.

    With PostgreSQL this is the production scale: `ppd serve` runs no model, `ppd worker` does.
    """
    database_pool_size: int = Field(default=10, ge=1, le=1000)
    """Connections of one process to PostgreSQL; no more are ever open."""
    database_pool_timeout_s: float = Field(default=5.0, gt=0)
    database_connect_timeout_s: int = Field(default=5, ge=2)
    database_lock_timeout_s: float = Field(default=5.0, gt=0)
    database_statement_timeout_s: float = Field(default=15.0, gt=0)
    redis_url: SecretStr | None = None
    """redis://...; production keeps embeddings, progress events and rate limits there."""
    images_url: str | None = None
    """s3://bucket/prefix; the default is the folder `images` in the data folder."""
    s3_endpoint: str | None = None
    """https://host[:port] of an S3-compatible store; the default is Amazon's. As for region and
    credentials, AWS_* variables count where these are not set."""
    s3_region: str | None = None
    s3_access_key_id: SecretStr | None = None
    s3_secret_access_key: SecretStr | None = None
    s3_session_token: SecretStr | None = None
    s3_timeout_s: float = Field(default=10.0, gt=0, le=300)
    """How long reading or writing one picture may take, with what is tried again."""
    session_secret: SecretStr | None = None
    """Signs browser sessions, 32 characters or more; the default is made in the data folder."""

    preset: str = "mini"
    weights_dir: Path | None = None
    """Folder of the preset's weights; the default is the one shipped with the code."""
    adapter: Path | None = None
    """An adapter's file to serve, whatever `ppd adapters activate` has put into service."""
    adapters_in_memory: int = Field(default=2, ge=1, le=64)
    """Adapters that a worker keeps loaded beside the shipped one, each as large as its file."""
    device: str = "cpu"
    """Of the generator: cpu, cuda or cuda:N."""
    vlm_device: str | None = None
    """Of the model that reads choices; the default is the generator's."""
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """Of both models; auto is bfloat16 for published weights on a GPU, else float32. In float64,
    which is for mini, pictures have the same bytes on any CPU."""
    offload: bool = False
    """Weights of what works on a GPU rest in main memory and go there only while they work."""
    prompt_variant: str = "paper"
    decoding: str = "greedy"
    model_threads: int = Field(default=2, ge=1, le=256)
    preview_every: int = Field(default=5, ge=0, le=50)
    """Pictures that are being made are shown every so many steps; 0 is never."""
    pool_dir: Path = Path(__file__).parent / "pool"
    web_dir: Path = Path(__file__).parent / "web"

    max_connections: int = Field(default=1024, ge=1)
    """Open at once; fewer where the process may not have so many descriptors."""
    max_connections_per_address: int = Field(default=256, ge=1)
    """Of one client's address, and half of all at most; proxies of ours have no such bound."""
    headers_timeout_s: float = Field(default=15.0, gt=0)
    """From the connection to the end of a request's headers."""
    body_timeout_s: float = Field(default=120.0, gt=0)
    """From there to the end of its body."""
    reading_timeout_s: float = Field(default=60.0, gt=0)
    """For how long a client may take nothing of its answer."""
    api_key_believed_s: float = Field(default=1.0, ge=0.0, le=60.0)
    """For how long a process does not look an API key up again."""
    rate_limit_key: str = "120000/minute"
    """Requests with one API key."""
    rate_limit_session: str = "1200/minute"
    """Requests of one browser session."""
    rate_limit_address: str = "1200/minute"
    """Requests from one address without a valid key or session, new sessions included."""
    gpu_seconds_per_user: str = "86400/day"
    """How long the models may work for one person."""
    gpu_seconds_per_tenant: str = "86400/day"
    """The same for all that the keys of one tenant ask for, for whomever."""
    gpu_seconds_of_sessions: str = "43200/day"
    """The same for all browser sessions together."""
    gpu_seconds_per_address: str = "21600/day"
    """The same for all browser sessions from one address."""
    max_body_bytes: int = Field(default=8 * 2**20, ge=1024)
    max_upload_body_bytes: int = Field(default=36 * 2**20, ge=1024)
    """Of requests that may bring pictures: 24 MiB of files in base64, in lines, and captions."""
    max_held_body_bytes: int = Field(default=128 * 2**20, ge=2**20)
    """Of all large requests together, from before they are read until they are answered."""
    max_requests_with_pictures: int = Field(default=32, ge=2)
    """That wait for their pictures to be read, or are."""
    max_queued_jobs: int = Field(default=64, ge=1)
    max_queued_jobs_of_sessions: int = Field(default=48, ge=1)
    max_queued_jobs_per_caller: int = Field(default=16, ge=1)
    max_queued_jobs_per_session: int = Field(default=4, ge=1)
    max_event_streams: int = Field(default=256, ge=1)
    max_event_streams_per_caller: int = Field(default=16, ge=1)
    max_waits: int = Field(default=1024, ge=1)
    max_waits_per_caller: int = Field(default=256, ge=1)
    """Requests that wait for a job; a `Prefer: wait` beyond is answered at once."""
    max_uploads_per_user: int = Field(default=200, ge=0)
    max_upload_bytes_per_user: int = Field(default=128 * 2**20, ge=0)
    max_people_of_sessions: int = Field(default=50_000, ge=1)
    max_rows_of_sessions: int = Field(default=200_000, ge=1)
    """Of all browser sessions together: jobs, versions of profiles, remembered requests."""
    max_picture_bytes_of_sessions: int = Field(default=8 * 2**30, ge=0)
    """Of all browser sessions together: pictures that were made and sent."""
    min_free_bytes: int = Field(default=200 * 2**20, ge=0)
    """Nothing is accepted that would leave less room than this where pictures or SQLite's file lie;
    what was accepted is finished, and deletions are taken."""
    retain_pictures_days: int | None = Field(default=None, ge=1)
    """Pictures that were made are deleted this long after; None keeps them, as below."""
    retain_jobs_days: int | None = Field(default=None, ge=3)
    """Jobs are deleted this long after they ended, with their pictures; 3, since Idempotency-Key
    holds for two days."""
    retain_inactive_users_days: int | None = Field(default=None, ge=1)
    """People for whom nothing was asked for this long are erased as by DELETE /users/{id}."""
    retain_sessions_days: int = Field(default=180, ge=0)
    """People of browser sessions for whom nothing was asked for this long are erased; 0 keeps."""
    retain_jobs_of_nobody_days: int = Field(default=90, ge=0)
    """Jobs of a key without a person are deleted this long after they ended, with their pictures;
    0 keeps them. 3 or more, as above."""
    retain_audit_days: int = Field(default=365, ge=0)
    """Entries of the audit record are deleted this long after; 0 keeps them."""
    c2pa_certificate: Path | None = None
    """A PEM file: the certificate that signs pictures by C2PA, then its issuers'. Needs the extra
    `c2pa`; every process that makes pictures or serves them needs it."""
    c2pa_key: Path | None = None
    """The PEM file of its key, without a password."""
    c2pa_timestamp_url: str | None = None
    """http://... of a time-stamp authority, so that signatures outlive the certificate."""
    moderation_words: Path | None = None
    """A file of words that no text may have, one or a phrase a line; [violence] and the like before
    the lines of a reason."""
    moderation_url: str | None = None
    """https://... of a service in the shape of OpenAI's moderations; needs the extra `moderation`.
    It is sent every text and picture of `moderation_places`."""
    moderation_key: SecretStr | None = None
    moderation_model: str | None = None
    """The model that it is to use; left out, its own choice."""
    moderation_timeout_s: float = Field(default=10.0, gt=0, le=60)
    moderation_places: str = "prompt,upload,picture"
    """Where content is judged: what is asked for, what is sent, what was made."""
    job_expiry_s: float = Field(default=3600.0, gt=0)
    job_lease_s: float = Field(default=60.0, gt=0)
    job_timeout_s: float = Field(default=1800.0, gt=0)
    """How long pictures may be in the making once a worker has begun; then the job fails. A lease
    is renewed as long as the worker lives, so it bounds nothing."""
    worker_seen_every_s: float = Field(default=5.0, gt=0, le=20)
    """How often a worker process says that it is there; silent for three times that, it is gone.
    At most 20 s: `/metrics` and the activation of adapters look back for no longer than minutes."""
    worker_grace_s: float = Field(default=30.0, gt=0)
    """From SIGTERM to the end of a worker process; what runs longer waits for another worker."""
    openai_wait_s: float = Field(default=300.0, gt=0, le=3600)
    """How long POST /v1/images/generations waits for its pictures before it answers 504."""
    openai_sizes: Literal["nearest", "exact"] = "nearest"
    """What POST /v1/images/generations does with a size that the model does not make: make the
    nearest that it does, or refuse it."""
    session_max_age_s: int = Field(default=365 * 24 * 3600, ge=60)
    shutdown_grace_s: int = Field(default=5, ge=1)

    metrics: Literal["open", "admin", "off"] = "open"
    """Who may read `/metrics`: everybody, an admin's key, nobody. It holds no personal data."""
    tracing: bool = False
    """Send spans by OTLP; needs the extra `tracing`. OTEL_* variables say where to."""
    log_format: Literal["text", "json"] | None = None
    """The default is text, with PostgreSQL json."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Of this program's own lines; those of libraries are written from WARNING on."""

    @model_validator(mode="after")
    def _production_is_whole(self) -> Self:
        if not self.production:
            return self
        missing = [
            name
            for name, value in {
                "PPD_REDIS_URL": self.redis_url,
                "PPD_SESSION_SECRET": self.session_secret,
            }.items()
            if value is None
        ]
        if missing:
            raise ValueError(f"with PostgreSQL {' and '.join(missing)} must be set too")
        return self

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str | None) -> str | None:
        if url is None:
            return None
        scheme, separator, rest = url.partition("://")
        if scheme in ("postgresql", "postgres", "postgresql+psycopg") and separator:
            return f"postgresql+psycopg://{rest}"
        if scheme == "sqlite+aiosqlite" and separator:
            return url
        raise ValueError("expected postgresql://user:password@host/database, or nothing for SQLite")

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not _REDIS.match(url.get_secret_value()):
            raise ValueError("expected redis://host:port/0, rediss://... (TLS) or unix:///path")
        return url

    @field_validator(
        "rate_limit_key",
        "rate_limit_session",
        "rate_limit_address",
        "gpu_seconds_per_user",
        "gpu_seconds_per_tenant",
        "gpu_seconds_of_sessions",
        "gpu_seconds_per_address",
    )
    @classmethod
    def _known_rate(cls, rate: str) -> str:
        try:
            known = parse_many(rate)
        except ValueError:
            known = []
        if len(known) != 1 or known[0].amount < 1 or known[0].multiples < 1:
            raise ValueError("expected a number per time, as in 600/minute or 7200 per 2 hours")
        return rate

    @field_validator("images_url")
    @classmethod
    def _known_image_store(cls, url: str | None) -> str | None:
        if url is not None and not _S3_URL.fullmatch(url):
            raise ValueError("expected s3://bucket or s3://bucket/prefix, or nothing for a folder")
        return url

    @field_validator("s3_endpoint")
    @classmethod
    def _endpoint_is_bare(cls, url: str | None) -> str | None:
        if url is not None and not _ENDPOINT.fullmatch(url):
            raise ValueError("expected https://host or http://host:port, without credentials")
        return url

    @model_validator(mode="after")
    def _s3_credentials_are_whole(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("PPD_S3_ACCESS_KEY_ID and PPD_S3_SECRET_ACCESS_KEY go together")
        return self

    @field_validator("moderation_places")
    @classmethod
    def _known_places(cls, text: str) -> str:
        if not {part.strip() for part in text.split(",")} <= set(get_args(ModeratedPlace)):
            raise ValueError("expected some of prompt, upload, picture, with commas between")
        return text

    @field_validator("moderation_url", "c2pa_timestamp_url")
    @classmethod
    def _known_address(cls, url: str | None) -> str | None:
        if url is not None and not _HTTP_URL.fullmatch(url):
            raise ValueError("expected https://host/path or http://host/path, without credentials")
        return url

    @field_validator("trusted_proxies")
    @classmethod
    def _known_proxies(cls, text: str) -> str:
        for part in text.split(",") if text else ():
            try:
                ipaddress.ip_network(part.strip(), strict=False)
            except ValueError:
                raise ValueError("expected addresses or networks, such as 10.0.0.0/8") from None
        return text

    @field_validator("cors_origins")
    @classmethod
    def _known_origins(cls, text: str) -> str:
        origins = [part.strip() for part in text.split(",")] if text else []
        if not all(origin == "*" or _ORIGIN.fullmatch(origin) for origin in origins):
            raise ValueError("expected * or origins such as https://shop.example, commas between")
        return ",".join(origins)

    @field_validator("allowed_hosts")
    @classmethod
    def _known_hosts(cls, text: str) -> str:
        names = [_bare_host(part.strip().lower()) for part in text.split(",")] if text else []
        if None in names:
            raise ValueError("expected * or names such as pictures.example, commas between")
        return ",".join(name for name in names if name)

    @field_validator("public_url")
    @classmethod
    def _public_url_is_bare(cls, url: str | None) -> str | None:
        bare = None if url is None else url.rstrip("/").lower()
        if bare is not None and not _ORIGIN.fullmatch(bare):
            raise ValueError("expected https://pictures.example, without a path")
        return bare

    @model_validator(mode="after")
    def _signing_is_whole(self) -> Self:
        if (self.c2pa_certificate is None) != (self.c2pa_key is None):
            raise ValueError("PPD_C2PA_CERTIFICATE and PPD_C2PA_KEY go together")
        return self

    @field_validator("session_secret")
    @classmethod
    def _long_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < 32:
            raise ValueError("expected 32 characters or more")
        return secret

    @field_validator("device", "vlm_device")
    @classmethod
    def _known_device(cls, name: str | None) -> str | None:
        if name is not None and not _DEVICE.fullmatch(name):
            raise ValueError("expected cpu, cuda or cuda:N")
        return name

    @model_validator(mode="after")
    def _the_gate_lets_every_body_through(self) -> Self:
        largest = max(self.max_body_bytes, self.max_upload_body_bytes)
        if largest > self.max_held_body_bytes * PART_OF_SESSIONS:
            raise ValueError(
                "PPD_MAX_HELD_BODY_BYTES: browser sessions may hold three quarters of it, which "
                "must be PPD_MAX_UPLOAD_BODY_BYTES and PPD_MAX_BODY_BYTES or more, or their "
                "largest bodies are refused for ever"
            )
        return self

    @model_validator(mode="after")
    def _offload_has_a_gpu(self) -> Self:
        if self.offload and not (self.generator_place.on_gpu or self.encoder_place.on_gpu):
            raise ValueError(
                "PPD_OFFLOAD moves weights to a GPU and back: set PPD_DEVICE or PPD_VLM_DEVICE "
                "to cuda"
            )
        return self

    @model_validator(mode="after")
    def _absolute(self) -> Self:
        object.__setattr__(self, "data_dir", self.data_dir.expanduser().absolute())
        return self

    @property
    def production(self) -> bool:
        """Whether API and workers are processes of their own, over PostgreSQL and Redis."""
        return (self.database_url or "").startswith("postgresql")

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        return tuple(self.cors_origins.split(",")) if self.cors_origins else ()

    @property
    def answered_hosts(self) -> tuple[str, ...]:
        """The names under which the service answers; none are all."""
        names = self.allowed_hosts.split(",") if self.allowed_hosts else []
        if not names and self.host.lower() in _LOOPBACK:
            names = [*_LOOPBACK, "0.0.0.0"]  # noqa: S104 - a name that some people type
        if not names or "*" in names:
            return ()
        public = urlsplit(self.public_url or "").hostname
        return (*names, *([public] if public else ()))

    @property
    def is_public(self) -> bool:
        """Whether others than this machine are served, as far as the settings tell."""
        there = self.public_url is not None or self.production
        return there or self.host.lower() not in _LOOPBACK

    @property
    def moderated_places(self) -> frozenset[ModeratedPlace]:
        named = {part.strip() for part in self.moderation_places.split(",")}
        return frozenset(place for place in get_args(ModeratedPlace) if place in named)

    @property
    def generator_place(self) -> Place:
        return self._place(self.device)

    @property
    def encoder_place(self) -> Place:
        return self._place(self.vlm_device or self.device)

    def _place(self, device: str) -> Place:
        dtype = None if self.dtype == "auto" else self.dtype
        return Place(device, dtype, offload=self.offload and device != "cpu")

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'ppd.db'}"

    def s3_config(self) -> dict[str, str]:
        """What is set of endpoint, region and credentials, by obstore's names; with the secrets."""
        given = {
            "endpoint": self.s3_endpoint,
            "region": self.s3_region,
            "access_key_id": _revealed(self.s3_access_key_id),
            "secret_access_key": _revealed(self.s3_secret_access_key),
            "session_token": _revealed(self.s3_session_token),
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def adapters_dir(self) -> Path:
        """Where a worker has its copies of the adapters that jobs are pinned to."""
        return self.data_dir / "adapters"

    @property
    def secrets(self) -> list[str]:
        """What must appear in no line of any output."""
        found: list[str | None] = []
        for name, value in self.model_dump().items():
            revealed = value.get_secret_value() if isinstance(value, SecretStr) else value
            if name.endswith("_url") and revealed:
                found.append(urlsplit(str(revealed)).password)
            elif isinstance(value, SecretStr):
                found.append(value.get_secret_value())
        return [secret for secret in found if secret]

    def redacted(self) -> dict[str, str]:
        """All settings for people to read, as PPD_<NAME>, without secrets."""
        shown: dict[str, str] = {}
        for name, value in self.model_dump().items():
            revealed = _revealed(value) if isinstance(value, SecretStr) else value
            if name.endswith("_url") and revealed:
                revealed = without_credentials(str(revealed))
            elif isinstance(value, SecretStr):
                revealed = "(set, not shown)"
            shown[variable(name)] = "(default)" if revealed is None else str(revealed)
        return shown


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return _PREFIX + name.upper()


def read(**given: Any) -> Settings:
    """The settings of this process; what is given and not None comes before the environment.

    Raises ValueError that names every wrong variable, and never what it was set to.
    """
    secrets_dir = SECRETS_DIR if SECRETS_DIR.is_dir() else None
    named = _named_files(os.environ)
    named |= {name: value for name, value in given.items() if value is not None}
    named["_secrets_dir"] = secrets_dir
    try:
        return Settings(**named)
    except SettingsError as error:  # a file in `SECRETS_DIR` that is not ours to read, say
        reason = type(error.__cause__).__name__
        raise ValueError(f"{secrets_dir}: {error}: {reason}") from None
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        raise ValueError("\n".join(_fault(fault) for fault in faults)) from None


SECRETS = sorted(
    name for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation)
)
SECRETS += ["database_url"]
"""What PPD_<NAME>_FILE may name a file of, in the place of PPD_<NAME>."""


def _named_files(environment: Mapping[str, str]) -> dict[str, Any]:
    """What is in the files that the environment names."""
    found = {}
    for name in SECRETS:
        path = environment.get(f"{variable(name)}_FILE")
        if not path:
            continue
        if environment.get(variable(name)):
            raise ValueError(f"{variable(name)}: it is set, and {variable(name)}_FILE too")
        try:
            found[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{variable(name)}_FILE: {path} cannot be read: {error}") from None
    return found


OF_TRAINING = {"PPD_DATASETS_DIR", "PPD_RUNS_DIR", "PPD_OVERRIDES"} | {
    f"PPD_JUDGE_{name}" for name in ("URL", "MODEL", "KEY")
}
"""What only training's jobs read."""


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Variables that look like settings and are none: misspelled ones, mostly."""
    known = {variable(name) for name in Settings.model_fields} | OF_TRAINING
    known |= {f"{variable(name)}_FILE" for name in SECRETS}
    return sorted(n for n in environment if n.startswith(_PREFIX) and n not in known)


def _bare_host(name: str) -> str | None:
    """As `Host` is compared: without port, brackets and the root's dot. None is no name."""
    if name == "*":
        return name
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(name))
    host = re.sub(r":\d{1,5}$", "", name)
    if host.startswith("[") and host.endswith("]"):
        with contextlib.suppress(ValueError):
            return str(ipaddress.IPv6Address(host[1:-1]))
    host = host.removesuffix(".")
    return host if _HOST.fullmatch(host) else None


def without_credentials(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _fault(fault: Mapping[str, Any]) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    return ": ".join([*(variable(str(name)) for name in fault["loc"][:1]), message])
