"""The running batch as Prometheus sees it: asked of the model at every scrape."""

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.core.ports import ModelRuntime

_SHAPES = 16
"""Series of step times are bounded: the sizes of pictures that were asked for first."""
_FAILED = "failed_"


class EngineMetrics(Collector):
    """Asks the model at every scrape; without a running batch there is nothing to say.

    Rows are pictures under way; a guided one takes two rows of the network. Mean rows of a pass:
    `rate(ppd_engine_row_steps_total[5m]) / rate(ppd_engine_passes_total[5m])`.
    """

    def __init__(self, runtime: ModelRuntime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        """The moment's rows, and what was counted since the model was loaded."""
        state = self._runtime.state()
        if state is None:
            return
        up = self._runtime.broken() is None
        yield GaugeMetricFamily(
            "ppd_engine_up", "Whether the engine makes pictures; 0 until a restart.", up
        )
        yield _gauge(
            "ppd_engine_rows",
            "Pictures in the engine: waiting, in the running batch, at the decoder.",
            "state",
            {
                "queued": state["queued_rows"],
                "running": state["running_rows"],
                "decoding": state["decoding_rows"],
            },
        )
        yield GaugeMetricFamily(
            "ppd_engine_queued_rows_limit",
            "Pictures that may wait in the engine.",
            state["queued_rows_at_most"],
        )
        yield GaugeMetricFamily(
            "ppd_engine_network_rows",
            "Rows of the network in the running batch: two of a picture that is guided.",
            state["network_rows"],
        )
        step_s = GaugeMetricFamily(
            "ppd_engine_step_seconds",
            "What one step of so many rows of the network takes, measured; by latent shape.",
            labels=("shape", "rows"),
        )
        for shape, points_s in list(state["step_s"].items())[:_SHAPES]:
            for rows, seconds in points_s.items():
                step_s.add_metric((shape, str(rows)), seconds)
        yield step_s
        counts = Counter(state["counts"])  # what never happened is not in it
        for name, text, value in (
            ("passes", "Steps of a batch.", counts["passes"]),
            ("row_steps", "Steps of pictures: several in one pass.", counts["row_steps"]),
            ("decoded_pictures", "Pictures that Stages B and A made.", state["decoded_pictures"]),
            ("decoded_batches", "Batches in which they did.", state["decoded_batches"]),
            ("previews", "Previews of pictures under way.", state["previews"]),
            ("jobs", "Jobs whose pictures were made.", counts["jobs"]),
            ("refused_jobs", "Jobs for which there was no room to wait.", counts["refused"]),
            ("halvings", "Times a batch was halved for want of memory.", counts["out_of_memory"]),
        ):
            yield CounterMetricFamily(f"ppd_engine_{name}", text, value)
        faults = CounterMetricFamily(
            "ppd_engine_faults",
            "Jobs without pictures, by why; cancelled ones too.",
            labels=("code",),
        )
        for name, count in counts.items():
            if name.startswith(_FAILED):
                faults.add_metric((name.removeprefix(_FAILED),), count)
        yield faults
        lookups = CounterMetricFamily(
            "ppd_engine_cache_lookups",
            "Keys and values asked of the engine's caches of texts and users.",
            labels=("cache", "outcome"),
        )
        caches = {"text": state["texts"], "user": state["users"]}
        for cache, seen in caches.items():
            lookups.add_metric((cache, "hit"), seen["hits"])
            lookups.add_metric((cache, "miss"), seen["misses"])
        yield lookups
        kept = {cache: seen["kept"] for cache, seen in caches.items()}
        yield _gauge("ppd_engine_cache_entries", "What these caches hold.", "cache", kept)


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for value_of, value in values.items():
        family.add_metric((value_of,), value)
    return family
