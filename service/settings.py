"""The one settings class. Read it only where a process is wired."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.core.placement import Place

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
    data_dir: Path = Path("data")
    database_url: str | None = Field(default=None, repr=False)
    """postgresql://...; the default is the SQLite file `ppd.db` in the data folder.

    With PostgreSQL this is the production scale: `ppd serve` runs no model, `ppd worker` does.
    """
    redis_url: SecretStr | None = None
    """redis://...; production keeps embeddings, progress events and rate limits there."""
    images_url: str | None = None
    """s3://bucket/prefix; the default is the folder `images` in the data folder."""
    session_secret: SecretStr | None = None
    """Signs browser sessions, 32 characters or more; the default is made in the data folder."""

    preset: str = "mini"
    weights_dir: Path | None = None
    """Folder of the preset's weights; the default is the one shipped with the code."""
    adapter: Path | None = None
    """An adapter's file to serve, whatever `ppd adapters activate` has put into service."""
    device: str = "cpu"
    """Of the generator: cpu, cuda or cuda:N."""
    vlm_device: str | None = None
    """Of the model that reads choices; the default is the generator's."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of both models; auto is bfloat16 for published weights on a GPU, else float32."""
    offload: bool = False
    """Weights of what works on a GPU rest in main memory and go there only while they work."""
    prompt_variant: str = "paper"
    decoding: str = "greedy"
    model_threads: int = Field(default=2, ge=1, le=256)
    pool_dir: Path = Path(__file__).parent / "pool"
    web_dir: Path = Path(__file__).parent / "web"

    max_body_bytes: int = Field(default=8 * 2**20, ge=1024)
    max_queued_jobs: int = Field(default=64, ge=1)
    max_queued_jobs_of_sessions: int = Field(default=48, ge=1)
    max_queued_jobs_per_caller: int = Field(default=16, ge=1)
    max_queued_jobs_per_session: int = Field(default=4, ge=1)
    max_event_streams: int = Field(default=256, ge=1)
    max_event_streams_per_caller: int = Field(default=16, ge=1)
    max_uploads_per_user: int = Field(default=200, ge=0)
    max_upload_bytes_per_user: int = Field(default=128 * 2**20, ge=0)
    min_free_bytes: int = Field(default=200 * 2**20, ge=0)
    """The image store takes no picture that would leave less room than this."""
    job_expiry_s: float = Field(default=3600.0, gt=0)
    job_lease_s: float = Field(default=60.0, gt=0)
    worker_seen_every_s: float = Field(default=5.0, gt=0)
    """How often a worker process says that it is there; silent for three times that, it is gone."""
    worker_grace_s: float = Field(default=30.0, gt=0)
    """From SIGTERM to the end of a worker process; what runs longer waits for another worker."""
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
    def generator_place(self) -> Place:
        """Where pictures are made."""
        return self._place(self.device)

    @property
    def encoder_place(self) -> Place:
        """Where choices are read."""
        return self._place(self.vlm_device or self.device)

    def _place(self, device: str) -> Place:
        dtype = None if self.dtype == "auto" else self.dtype
        return Place(device, dtype, offload=self.offload and device != "cpu")

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'ppd.db'}"

    @property
    def adapters_dir(self) -> Path:
        """Where activated adapters are kept."""
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
    named = {name: value for name, value in given.items() if value is not None}
    named["_secrets_dir"] = secrets_dir
    try:
        return Settings(**named)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        raise ValueError("\n".join(_fault(fault) for fault in faults)) from None


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Variables that look like settings and are none: misspelled ones, mostly."""
    known = {variable(name) for name in Settings.model_fields}
    return sorted(n for n in environment if n.startswith(_PREFIX) and n not in known)


def without_credentials(url: str) -> str:
    """Scheme, host and path of a URL."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _fault(fault: Mapping[str, Any]) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    return ": ".join([*(variable(str(name)) for name in fault["loc"][:1]), message])
