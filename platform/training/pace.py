"""How many steps make a chunk, and how many an iteration."""

from __future__ import annotations


def fragment_length(rows_per_update: int, train_ratio: float, envs: int, updates: int = 1, most: int = 64) -> int:
    """Return the steps of each of ``envs`` environments that ``updates`` updates use up, between 1 and ``most``.

    The fewer, the closer acting stays to the newest weights; the more, the less every step costs.
    """
    return int(min(most, max(1, updates * rows_per_update / train_ratio // envs)))


def iteration_steps(rows_per_update: int, train_ratio: float, updates: int = 8) -> int:
    """Return the policy steps of one iteration of a run that is counted in steps.

    They are ``updates`` updates' worth, but at most 1,024: some seconds, after which a run looks at its clock.
    """
    return min(1_024, max(1, round(updates * rows_per_update / train_ratio)))
