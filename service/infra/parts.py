"""What API and worker of one deployment share, chosen once by `service.wiring`."""

from dataclasses import dataclass, fields
from typing import Any

from service.core.pool import Pool
from service.core.ports import EmbeddingCache, ImageStore, PictureSigner, ProgressEvents
from service.infra.memory.job_signals import JobSignals
from service.infra.memory.rate_limits import RateLimits
from service.infra.metrics import Metrics
from service.infra.moderation.judges import Judges
from service.infra.sql.database import Database
from service.infra.sql.repositories.retention import Retention


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The stores and the lines between the processes."""

    database: Database
    images: ImageStore
    cache: EmbeddingCache
    events: ProgressEvents
    signals: JobSignals
    rates: RateLimits
    pool: Pool
    retention: Retention
    moderation: Judges
    metrics: Metrics
    signer: PictureSigner | None = None

    def by_name(self) -> dict[str, Any]:
        """These parts as keyword arguments, for a class that adds its own to them."""
        return {part.name: getattr(self, part.name) for part in fields(Parts)}
