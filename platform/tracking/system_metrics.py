"""How much of the machine a run uses, under the names that MLflow shows on its page of system metrics."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

MEGABYTE = 1e6


class SystemMetrics:
    """Samples processor, memory, disk and GPUs; use since the sample before, where that is what counts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process = psutil.Process()
        psutil.cpu_percent(None)

    def sample(self) -> dict[str, float]:
        """The figures now, in percent and megabytes."""
        memory = psutil.virtual_memory()
        figures = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(None),
            "system/system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_usage_megabytes": self._process.memory_info().rss / MEGABYTE,
            "system/disk_usage_percentage": psutil.disk_usage(str(self.directory)).percent,
        }
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            for index in range(torch.cuda.device_count()):
                free, total = torch.cuda.mem_get_info(index)
                figures[f"system/gpu_{index}_memory_usage_megabytes"] = (total - free) / MEGABYTE
                figures[f"system/gpu_{index}_memory_usage_percentage"] = 100 * (total - free) / total
        return figures
