"""How much of each GPU's memory this process uses, where torch is loaded and has one."""

import sys
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class GpuMemory(Collector):
    """Reads torch's own counters. Never imports torch and never wakes a GPU that is not in use."""

    def collect(self) -> Iterator[Metric]:
        """Bytes by device: allocated, reserved, peak of allocated, and what the device has."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return
        family = GaugeMetricFamily(
            "ppd_gpu_memory_bytes", "Memory of a GPU as torch counts it.", labels=("device", "what")
        )
        for index in range(torch.cuda.device_count()):
            device = f"cuda:{index}"
            family.add_metric((device, "allocated"), torch.cuda.memory_allocated(index))
            family.add_metric((device, "reserved"), torch.cuda.memory_reserved(index))
            family.add_metric((device, "peak"), torch.cuda.max_memory_allocated(index))
            total = torch.cuda.get_device_properties(index).total_memory
            family.add_metric((device, "total"), total)
        yield family
