"""Where one of the two models works. Known before torch is imported; the engine acts on it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Device (`cpu`, `cuda` or `cuda:N`) and dtype of one model; None is its own dtype there.

    With `offload` the weights rest in main memory and are on their GPU only while they work.
    """

    device: str = "cpu"
    dtype: str | None = None
    offload: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether the model works on a GPU."""
        return self.device.startswith("cuda")


CPU = Place()
