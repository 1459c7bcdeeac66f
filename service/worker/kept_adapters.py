"""The adapters that jobs asked for lately, in memory, so that they alternate without reading."""

import threading
from collections import OrderedDict

from ppd_model.pipeline import Pipeline
from ppd_model.sampling.requests import LoadedAdapter
from service.core.errors import JobFailure
from service.core.ports import AdapterFile


class KeptAdapters:
    """At most `capacity` adapters beside the one that the pipeline was loaded with.

    Each is as large on the generator's device as its file, and a job that waits for its first step
    holds on to its own. From any thread.
    """

    def __init__(self, pipeline: Pipeline, encoder_id: str, capacity: int) -> None:
        self._pipeline = pipeline
        self._encoder_id = encoder_id
        self._capacity = capacity
        self._first = pipeline.installed
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, LoadedAdapter] = OrderedDict()

    def get(self, wanted: AdapterFile | None) -> LoadedAdapter:
        """The adapter that a job is pinned to; None is the first one.

        Raises JobFailure for one that is missing, damaged, or of another base model or encoder.
        """
        if wanted is None:
            return self._first
        with self._lock:
            loaded = self._kept.get(wanted.sha256)
            if loaded is None:
                while len(self._kept) >= self._capacity:
                    self._kept.popitem(last=False)
                loaded = self._kept[wanted.sha256] = self._read(wanted)
            self._kept.move_to_end(wanted.sha256)
            return loaded

    def _read(self, wanted: AdapterFile) -> LoadedAdapter:
        try:
            return self._pipeline.adapter_from(
                wanted.path, sha256=wanted.sha256, encoder_id=self._encoder_id
            )
        except (ValueError, OSError) as error:
            detail = f"Adapter {wanted.version} was refused: {error}"
            raise JobFailure("adapter_unavailable", detail) from error
