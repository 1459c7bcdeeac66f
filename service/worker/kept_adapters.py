"""The adapters that jobs asked for lately, in memory, so that they alternate without reading."""

from collections import OrderedDict

from ppd_model.pipeline import LoadedAdapter, Pipeline
from service.core.errors import JobFailure
from service.core.ports import AdapterFile


class KeptAdapters:
    """At most `room` adapters beside the one that the pipeline was loaded with.

    Each is as large on the generator's device as its file. Belongs to the model's thread.
    """

    def __init__(self, pipeline: Pipeline, encoder_id: str, room: int) -> None:
        self._pipeline = pipeline
        self._encoder_id = encoder_id
        self._room = room
        self._first = pipeline.installed
        self._kept: OrderedDict[str, LoadedAdapter] = OrderedDict()

    def put_in_place(self, wanted: AdapterFile | None) -> None:
        """Install the adapter that a job is pinned to; None is the first one.

        Raises JobFailure for one that is missing, damaged, or of another base model or encoder.
        """
        self._pipeline.install(self._first if wanted is None else self._get(wanted))

    def _get(self, wanted: AdapterFile) -> LoadedAdapter:
        loaded = self._kept.get(wanted.sha256)
        if loaded is None:
            while len(self._kept) >= self._room:
                self._kept.popitem(last=False)
            # A dropped adapter may still be the one in place, and would take its room.
            self._pipeline.install(self._first)
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
