"""What the routers work with; filled where the process is wired."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from opentelemetry.trace import TracerProvider

from service.api.in_flight import InFlight
from service.api.key_lookup import KeyLookup
from service.api.streams import OpenStreams
from service.core.ports import Capabilities
from service.infra.parts import Parts
from service.infra.queue_state import QueueMetrics


class WorkerState(Protocol):
    """Whether jobs of every kind can be run."""

    async def why_not_ready(self) -> str | None:
        """Why not; None when they can."""

    async def impaired(self) -> str | None:
        """What works only in part meanwhile; None when all of it does."""

    async def encoder_version(self) -> str | None:
        """The encoder that reads choices at present; None while that is not known."""


@dataclass(frozen=True)
class Limits:
    """How much waits at most, and how long."""

    max_body_bytes: int
    max_queued_jobs: int
    max_queued_jobs_of_sessions: int
    """Of all browser sessions together: they cost nothing, and keys must find room beside them."""
    max_queued_jobs_per_caller: int
    max_queued_jobs_per_session: int
    max_uploads_per_user: int
    max_upload_bytes_per_user: int
    job_expiry_s: float
    session_max_age_s: int
    openai_wait_s: float
    """How long POST /v1/images/generations waits for its job."""


@dataclass(frozen=True, kw_only=True)
class Services(Parts):
    """The parts behind the API."""

    capabilities: Capabilities
    worker: WorkerState
    limits: Limits
    keys: KeyLookup
    in_flight: InFlight
    streams: OpenStreams
    session_secret: str
    web_dir: Path
    queue_metrics: QueueMetrics
    metrics_access: Literal["open", "admin", "off"] = "open"
    """Who may read `/metrics`: everybody, an admin's key, nobody."""
    tracer_provider: TracerProvider | None = None
    """Where spans go; None records none."""
    new_seed: Callable[[], int]
    """Draws a seed in 0..2^31-1 for a request that names none."""
