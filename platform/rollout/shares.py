"""How sure one can be of a share of episodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

NORMAL_95 = 1.96


def share_interval(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95% interval of the share ``count / of``: within 0 and 1, and no point at either end.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001. Raises ``ValueError`` unless 0 <= count <= of and of > 0.
    """
    if not 0 <= count <= of or not of:
        raise ValueError(f"{count} of {of} is no share")
    z, share = NORMAL_95, count / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return max(0.0, middle - half), min(1.0, middle + half)


def count_shares(said: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """Of what episodes say 0 or 1, such as whether a milestone was reached: in how many it was 1, by name.

    What an episode does not speak of is 0; what some episode has any other number for is left out.
    """
    names = sorted({name for one in said for name in one})
    values = {name: [one.get(name, 0.0) for one in said] for name in names}
    return {name: int(sum(each)) for name, each in values.items() if set(each) <= {0.0, 1.0}}


def intervals(shares: Mapping[str, int], episodes: int) -> dict[str, list[float]]:
    """``share_interval`` of each count among so many episodes, by name."""
    return {name: list(share_interval(count, episodes)) for name, count in shares.items()}
