"""The one settings class. Read it only where a process is wired."""

import re
from pathlib import Path
from typing import Literal, Self

from limits import parse_many
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.core.placement import Place

_REDIS = re.compile(r"rediss?://.|unix://.")
_DEVICE = re.compile(r"cpu|cuda(:(0|[1-9][0-9]?))?")


class Settings(BaseSettings):
    """Every setting, from the environment as PPD_<NAME>; secrets may lie in /run/secrets."""

    model_config = SettingsConfigDict(
        env_prefix="PPD_",
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

    rate_limit_key: str = "120000/minute"
    """Requests with one API key."""
    rate_limit_session: str = "1200/minute"
    """Requests of one browser session."""
    rate_limit_address: str = "1200/minute"
    """Requests from one address without a valid key or session, new sessions included."""
    gpu_seconds_per_user: str = "86400/day"
    """How long the models may work for one person."""
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
        "rate_limit_key", "rate_limit_session", "rate_limit_address", "gpu_seconds_per_user"
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

    def redacted(self) -> dict[str, str]:
        """All settings for people to read, without secrets."""
        shown = {name: str(value) for name, value in self.model_dump().items()}
        shown["database_url"] = "(set, not shown)" if self.database_url else "(default)"
        return shown
