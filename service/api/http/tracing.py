"""OpenTelemetry by FastAPI's own switch, without what a span would say about people."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import Span, Tracer, TracerProvider

_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
_PERSONAL = frozenset({"url.path", "url.query"})


def telemetry(provider: TracerProvider | None) -> TelemetryConfig:
    """FastAPI's configuration: spans to `provider`, and nothing else of its own.

    Metrics are Prometheus's here, and its log records hold the texts of exceptions.
    """
    return {
        "tracing": provider is not None,
        "tracer_provider": None if provider is None else PathlessProvider(provider),
        "metrics": False,
        "logs": False,
        "auto_configure": False,
    }


def exporting_provider() -> TracerProvider:
    """Spans by OTLP over HTTP; OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME configure it.

    Raises ValueError with what to install when the SDK is not there.
    """
    if not all(_installed(name) for name in _NEEDED):
        raise ValueError("PPD_TRACING=true needs OpenTelemetry's SDK: pip install 'ppd[tracing]'")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    sdk = SdkProvider()
    sdk.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    provider: TracerProvider = sdk
    return provider


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class PathlessProvider(TracerProvider):
    """Another provider, whose spans get no path and no query: both hold the ids of people.

    The route's template, which FastAPI adds, says which call it was.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        """A tracer like the other provider's."""
        return _PathlessTracer(self._provider.get_tracer(*args, **kwargs))


class _PathlessTracer(Tracer):
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(self, name: str, *args: Any, **kwargs: Any) -> Span:
        return self._tracer.start_span(name, *args, **_pathless(kwargs))

    @contextmanager
    def start_as_current_span(self, name: str, *args: Any, **kwargs: Any) -> Iterator[Span]:  # type: ignore[override]
        with self._tracer.start_as_current_span(name, *args, **_pathless(kwargs)) as span:
            yield span


def _pathless(kwargs: dict[str, Any]) -> dict[str, Any]:
    attributes = kwargs.get("attributes") or {}
    kept = {name: value for name, value in attributes.items() if name not in _PERSONAL}
    return {**kwargs, "attributes": kept}
