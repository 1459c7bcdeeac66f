"""What the routers work with; filled where the process is wired."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from opentelemetry.trace import TracerProvider

from ppd_model.pictures.apart import Readers
from service.actions.accepting import Accepting
from service.actions.gate import Gate
from service.actions.limits import Limits, Room
from service.actions.queue_places import QueuePlaces
from service.api.http.in_flight import InFlight
from service.api.http.streams import OpenStreams
from service.api.job_lookup import JobLookup
from service.api.key_lookup import KeyLookup
from service.core.fairness import Working
from service.core.ports import Capabilities, Versions
from service.infra.parts import Parts
from service.infra.queue.queue_state import QueueMetrics


class WorkerState(Protocol):
    """Whether jobs of every kind can be run."""

    async def why_not_ready(self) -> str | None:
        """Why not; None when they can."""

    async def impaired(self) -> str | None:
        """What works only in part meanwhile; None when all of it does."""

    async def encoder_version(self) -> str | None:
        """The encoder that reads choices at present; None while that is not known."""

    async def working(self) -> Sequence[Working]:
        """The models that take jobs at present."""

    async def versions(self) -> Versions | None:
        """What pictures are made with at present; None while that is not known."""


@dataclass(frozen=True, kw_only=True)
class Services(Parts):
    """The parts behind the API."""

    capabilities: Capabilities
    worker: WorkerState
    limits: Limits
    keys: KeyLookup
    jobs: JobLookup
    places: QueuePlaces
    accepting: Accepting
    room: Room
    in_flight: InFlight
    streams: OpenStreams
    gate: Gate
    readers: Readers
    """What reads pictures that people send; it has a process."""
    waits: OpenStreams
    """Requests that wait for the end of a job."""
    session_secret: str
    web_dir: Path
    queue_metrics: QueueMetrics
    metrics_access: Literal["open", "admin", "off"] = "open"
    """Who may read `/metrics`: everybody, an admin's key, nobody."""
    exact_sizes: bool = False
    """Whether OpenAI's clients are refused sizes that the model does not make."""
    cors_origins: tuple[str, ...] = ()
    """Other sites whose scripts may call the API with a key."""
    allowed_hosts: tuple[str, ...] = ()
    """The names under which the service answers; none are all."""
    public_url: str | None = None
    """Where clients reach the service, without a slash at the end; None is where they asked."""
    tracer_provider: TracerProvider | None = None
    """Where spans go; None records none."""
    new_seed: Callable[[], int]
    """Draws a seed in 0..2^31-1 for a request that names none."""
