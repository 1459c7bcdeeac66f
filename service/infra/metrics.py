"""What is counted and timed, for Prometheus. Labels name routes, models and codes, never people."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_HTTP_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_JOB_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 900, 3600)


class Metrics:
    """The instruments of one process, in a registry of its own.

    Who does a thing counts it: the handler that made the pictures, the route that canceled the
    job, the sweep that gave it up.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._http = Histogram(
            "ppd_http_request_seconds",
            "From the first byte of a request to the last of its answer, by route template.",
            ("method", "route", "status"),
            buckets=_HTTP_BUCKETS_S,
            registry=self.registry,
        )
        self._jobs = Histogram(
            "ppd_job_seconds",
            "From the acceptance of a job to its end; `code` says why one failed.",
            ("kind", "outcome", "code"),
            buckets=_JOB_BUCKETS_S,
            registry=self.registry,
        )
        self._phases = Histogram(
            "ppd_job_phase_seconds",
            "Parts of a job that succeeded: queue, then encode, or denoise and decode.",
            ("phase", "model", "adapter"),
            buckets=_JOB_BUCKETS_S,
            registry=self.registry,
        )
        self._pictures = Counter(
            "ppd_pictures",
            "Pictures made, and whether a taste was applied; `reason` says why not, or how.",
            ("personalized", "reason", "model", "adapter"),
            registry=self.registry,
        )
        self._answered_again = Counter(
            "ppd_pictures_answered_again",
            "Pictures that an equal request was given again, without the model.",
            ("personalized", "model", "adapter"),
            registry=self.registry,
        )
        self._blind_choices = Counter(
            "ppd_blind_choices",
            "Blind choices between a picture in a person's taste and the base, by what the two "
            "come to with it: won, lost, tied, inconsistent.",
            ("adapter", "outcome"),
            registry=self.registry,
        )
        self._refusals = Counter(
            "ppd_content_refusals",
            "Texts and pictures that moderation refused, by where it looked and why.",
            ("place", "reason"),
            registry=self.registry,
        )
        self._lookups = Counter(
            "ppd_embedding_cache_lookups",
            "Embeddings asked of the cache, by what came: hit, miss.",
            ("outcome",),
            registry=self.registry,
        )
        self._streams = Gauge(
            "ppd_event_streams",
            "Event streams that this process holds open.",
            registry=self.registry,
        )

    def request(self, method: str, route: str, status: int, took_s: float) -> None:
        """A request was answered. `route` is the template; what matched none has one name."""
        known = method if method in _METHODS else "OTHER"
        self._http.labels(known, route, str(status)).observe(took_s)

    def job_ended(self, kind: str, outcome: str, took_s: float, code: str = "") -> None:
        """A job has reached its end: succeeded, failed, canceled or expired."""
        self._jobs.labels(kind, outcome, code).observe(max(0.0, took_s))

    def generated(self, result: Mapping[str, Any]) -> None:
        """Pictures were published; `result` is what the client sees of them."""
        model, adapter = str(result["model"]), str(result["adapter_version"])
        for phase in ("queue", "denoise", "decode"):
            self._phases.labels(phase, model, adapter).observe(result["timings"][f"{phase}_s"])
        applied = "yes" if result["personalization_applied"] else "no"
        reason = result.get("reason") or ("" if applied == "yes" else "no_user")
        made = self._pictures.labels(applied, reason, model, adapter)
        made.inc(len(result["images"]))

    def answered_again(self, result: Mapping[str, Any]) -> None:
        """Pictures made earlier were given to an equal request."""
        applied = "yes" if result["personalization_applied"] else "no"
        given = self._answered_again.labels(
            applied, str(result["model"]), str(result["adapter_version"])
        )
        given.inc(len(result["images"]))

    def encoded(self, encoder: str, queue_s: float, encode_s: float) -> None:
        """Choices were read. The model of this kind of job is the encoder; it has no adapter."""
        self._phases.labels("queue", encoder, "").observe(max(0.0, queue_s))
        self._phases.labels("encode", encoder, "").observe(encode_s)

    def cache_lookup(self, *, found: bool) -> None:
        """The embedding cache was asked: it had it (hit), or who asked had to read (miss)."""
        self._lookups.labels("hit" if found else "miss").inc()

    def blind_choice(self, adapter: str, outcome: str) -> None:
        """Somebody chose between a picture in their taste and the base, and was not told which."""
        self._blind_choices.labels(adapter, outcome).inc()

    def refused(self, place: str, reason: str) -> None:
        """Moderation refused a text or a picture."""
        self._refusals.labels(place, reason).inc()

    def streams_are(self, count: Callable[[], float]) -> None:
        """Ask `count` at every scrape how many event streams are open."""
        self._streams.set_function(count)

    def also(self, collector: Collector) -> None:
        """Ask this collector too at every scrape."""
        self.registry.register(collector)


def text(registries: Iterable[CollectorRegistry]) -> bytes:
    """These registries one after another in Prometheus's text format."""
    return b"".join(generate_latest(registry) for registry in registries)
