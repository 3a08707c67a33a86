"""What can be wrong with a checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, or not for this; one sentence names it and the reason."""


class CheckpointWriteError(OSError):
    """A checkpoint that could not be written; what was there before is untouched."""
