"""Messages of an evaluation: those of the episodes that count, each told of where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from counting_policy import CountingPolicy
from gymnasium import spaces
from oneiros.algorithms.belief import Belief, Hyperparameters
from oneiros.algorithms.belief.config import ChannelSettings
from oneiros.envs import registry
from oneiros.envs.spaces import flatten_action_space, flatten_observation_space
from oneiros.platform.rollout import evaluate
from scripted import Toys


@pytest.fixture(autouse=True)
def suite() -> Iterator[None]:
    registry.register(Toys())
    yield
    registry._registered.clear()


class Teller(CountingPolicy):
    """Says in each step the observation that it was given."""

    kept = False

    def keep_messages(self, keep: bool) -> bool:
        self.kept = keep
        return True

    def messages(self, rows: Any) -> list[dict[str, Any]]:
        seen = next(v for v in rows.values() if v.ndim == 2 and v.shape[1] == 4)
        assert rows["is_first"].tolist() == [t == 0 for t in range(len(seen))]
        return [{"step": t, "told": row[1:3].tolist()} for t, row in enumerate(seen)]


@pytest.mark.parametrize("options, of", [({}, [0, 1, 2, 3]), ({"fault": "raised", "at": (1, 2)}, [0, 2, 3, 4])])
def test_each_is_of_its_step_in_its_episode_whatever_faults(options: dict[str, Any], of: list[int]) -> None:
    policy, found = Teller(spaces.Discrete(4)), list[Any]()
    result = evaluate("toys/scripted", policy, 4, num_envs=1, env_options=options, messages=found.append)
    assert found == [
        {"episode": number, "step": t, "told": [episode, t]}
        for number, episode in enumerate(of)
        for t in range(result.lengths[number] + 1)
    ], "the last observation is one more row than there were steps"
    assert not policy.kept


def test_those_who_talk_are_read_along_with_and_play_alike() -> None:
    env = registry.make("minds/boxes")
    spaces_ = dict(flatten_observation_space(env.observation_space)), dict(flatten_action_space(env.action_space))
    tiny: dict[str, Any] = {"size": "1m", "deter": 16, "hidden": 8, "groups": 4, "classes": 4, "units": 8, "context": 8}
    channel = ChannelSettings(tokens=1, vocabulary=4, drop_rate=0.3, bit_budget=7)
    hyper = Hyperparameters(**tiny, bins=31, channel=channel)
    found: list[Any] = []
    one, other = (
        evaluate("minds/boxes", Belief(hyper, *spaces_, role="policy"), 5, num_envs=2, messages=messages)
        for messages in (None, found.append)
    )
    assert one == other
    assert {m["episode"] for m in found} == set(range(5))
    for name in ("anne", "sally"):
        mine = [m for m in found if m["from"] == name]
        assert [m["step"] for m in mine] == [t for length in other.lengths for t in range(length + 1)]
        assert sum(m["bits"] for m in mine) / 5 == other.extras[f"bits/{name}/an_episode"] == 6
        assert {(m["withheld_by"], m["dropped"]) for m in mine} == {(None, False), (None, True), ("budget", False)}


def test_nobody_is_asked_who_has_nothing_to_say() -> None:
    found: list[Any] = []
    assert evaluate("toys/scripted", CountingPolicy(spaces.Discrete(4)), 2, messages=found.append).episodes == 2
    assert found == []
