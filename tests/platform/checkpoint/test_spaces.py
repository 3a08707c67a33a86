import json

import numpy as np
import pytest
from gymnasium import spaces
from oneiros.platform.checkpoint import CheckpointError, space_from_json, space_to_json

SPACES = [
    spaces.Box(-1, 1, (3,), np.float32),
    spaces.Box(0, 255, (8, 6, 3), np.uint8),
    spaces.Box(np.array([-np.inf, 0.5]), np.array([np.inf, 2.0]), dtype=np.float64),
    spaces.Box(-np.inf, np.inf, (), np.float32),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([3, 4], start=[1, 0]),
    spaces.MultiDiscrete([[3, 4], [2, 2]]),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Text(12, min_length=2, charset="abc"),
    spaces.Dict(image=spaces.Box(0, 255, (4, 4, 1), np.uint8), inner=spaces.Dict(mask=spaces.MultiBinary(3))),
    spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (2,)))),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_survives_json(space):
    description = json.loads(json.dumps(space_to_json(space), allow_nan=False))
    rebuilt = space_from_json(description)
    assert rebuilt == space
    assert space_to_json(rebuilt) == description


def test_other_kinds_are_refused_by_name():
    with pytest.raises(CheckpointError, match="Sequence"):
        space_to_json(spaces.Sequence(spaces.Discrete(2)))
