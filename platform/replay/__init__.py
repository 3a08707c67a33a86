"""Experience replay: append-only memory-mapped chunks, windows sampled from them, latents written back.

Everything here but ``staging`` needs only numpy; import ``oneiros.platform.replay.staging`` for batches on a device.
"""

from oneiros.platform.replay.blocks import CorruptChunk
from oneiros.platform.replay.buffer import Experience, Replay, ReplayNotReady
from oneiros.platform.replay.chunks import ReplayMismatch
from oneiros.platform.replay.directory import DirectoryInUse

__all__ = ["CorruptChunk", "DirectoryInUse", "Experience", "Replay", "ReplayMismatch", "ReplayNotReady"]
