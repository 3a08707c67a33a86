"""The record of a run: its directory, its figures, where it came from, and MLflow."""

from oneiros.platform.tracking.metrics_file import MetricsFile, read_metrics
from oneiros.platform.tracking.provenance import provenance
from oneiros.platform.tracking.run_directory import RunDirectory
from oneiros.platform.tracking.tracker import Tracker
from oneiros.platform.tracking.video import VideoWriter, write_video

__all__ = ["MetricsFile", "RunDirectory", "Tracker", "VideoWriter", "provenance", "read_metrics", "write_video"]
