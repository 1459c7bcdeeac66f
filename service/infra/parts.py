"""What API and worker of one deployment share, chosen once by `service.wiring`."""

from dataclasses import dataclass, fields
from typing import Any

from service.core.pool import Pool
from service.core.ports import (
    EmbeddingCache,
    ImageStore,
    JobSignals,
    ProgressEvents,
    RateLimits,
)
from service.infra.database import Database


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

    def by_name(self) -> dict[str, Any]:
        """These parts as keyword arguments, for a class that adds its own to them."""
        return {field.name: getattr(self, field.name) for field in fields(Parts)}
