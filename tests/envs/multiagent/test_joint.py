"""PettingZoo environments as joint steps: agents that join and die, that take turns, and what each may know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from oneiros.envs import registry
from oneiros.envs.contract import NOTHING, InvalidOption, UnsupportedSpace
from oneiros.envs.minds_suite import Boxes
from oneiros.envs.multiagent import Aspect, AspectSpec, joint
from oneiros.envs.spaces import flatten_action_space, flatten_observation_space


class Mayflies:
    """A ``ParallelEnv``: ``a`` dies on arriving at step 2, ``b`` joins at step 1, time runs out at step 4.

    Everybody sees the time, which starts at 10, and is paid its own number.
    """

    possible_agents = ("a", "b", "c")

    def __init__(self) -> None:
        self.agents: list[str] = []
        self.time = 0

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        low = 10 if agent == "c" else 0
        return spaces.Box(low, 100, (1,), np.float32)

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete({"a": 2, "b": 3, "c": 4}[agent])

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents, self.time = ["a", "c"], 0
        return self._see(self.agents), {}

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        assert set(actions) == set(self.agents), actions
        self.time += 1
        before = list(self.agents)
        terminations = {name: name == "a" and self.time == 2 for name in before}
        truncations = dict.fromkeys(before, self.time == 4)
        self.agents = [n for n in before if not terminations[n] and not truncations[n]]
        if self.time == 1:
            self.agents.append("b")
        seen = self._see([*before, *(n for n in self.agents if n not in before)])
        rewards = {name: {"a": 1.0, "b": 2.0, "c": 3.0}[name] for name in before}
        return seen, rewards, terminations, truncations, {}

    def _see(self, names: Any) -> dict[str, Any]:
        return {name: np.array([10.0 + self.time]) for name in names}

    def close(self) -> None:
        pass


class Nim:
    """An ``AECEnv``: two take one or two of five matches in turn; who takes the last one wins."""

    possible_agents = ("one", "two")

    def __init__(self) -> None:
        self.agents: list[str] = []
        self.left = 5
        self.agent_selection = "one"

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Dict({"left": spaces.Discrete(6), "action_mask": spaces.Box(0, 1, (2,), np.int8)})

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete(2)

    def agent_iter(self) -> None: ...

    def observe(self, agent: str) -> Any:
        mask = [1, int(self.left > 1)] if agent == self.agent_selection else [0, 0]
        return {"left": self.left, "action_mask": np.array(mask, np.int8)}

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.agents, self.left, self.agent_selection = ["one", "two"], 5, "one"
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)

    def step(self, action: int | None) -> None:
        name = self.agent_selection
        other = "two" if name == "one" else "one"
        if self.terminations[name]:
            assert action is None
            self.agents.remove(name)
            self.agent_selection = self.agents[0] if self.agents else name
            return
        assert action is not None
        self.left -= action + 1
        over = self.left <= 0
        self.rewards = {name: float(over), other: -float(over)}
        self.terminations = dict.fromkeys(self.agents, over)
        self.agent_selection = other

    def close(self) -> None:
        pass


def history(env: Any, actions: list[dict[str, int]]) -> list[tuple[Any, float, bool, bool]]:
    observation, _ = env.reset(seed=0)
    seen = [(observation, 0.0, False, False)]
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append((observation, float(reward), terminated, truncated))
    return seen


ACTIONS = {"a": 1, "b": 2, "c": 3}


class TestComingAndGoing:
    def test_each_is_there_from_its_first_observation_to_its_last(self) -> None:
        seen = history(joint(Mayflies()), [ACTIONS] * 4)
        alive = [[int(o["agent"][n]["alive"]) for n in "abc"] for o, *_ in seen]
        assert alive == [[1, 0, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 1]]
        terminal = [[int(o["training"][n]["terminal"]) for n in "abc"] for o, *_ in seen]
        assert terminal == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
        assert [s[2:] for s in seen] == [(False, False)] * 4 + [(False, True)]

    def test_those_that_are_not_there_are_blank_within_their_space(self) -> None:
        seen = history(joint(Mayflies()), [ACTIONS] * 4)
        own = [[float(o["agent"][n]["obs"][0]) for n in "abc"] for o, *_ in seen]
        assert own == [[10, 0, 10], [11, 11, 11], [12, 12, 12], [0, 13, 13], [0, 14, 14]]

    def test_each_is_paid_its_own_and_the_team_the_mean(self) -> None:
        seen = history(joint(Mayflies()), [ACTIONS] * 4)
        own = [[float(o["training"][n]["reward"]) for n in "abc"] for o, *_ in seen]
        assert own == [[0, 0, 0], [1, 0, 3], [1, 2, 3], [0, 2, 3], [0, 2, 3]]
        assert [reward for _, reward, *_ in seen] == pytest.approx([sum(row) / 3 for row in own])

    def test_gymnasiums_own_checker_is_satisfied(self) -> None:
        check_env(joint(Boxes()), skip_render_check=True)


class TestTurns:
    def test_a_joint_step_is_one_turn_and_the_action_of_the_other_is_not_executed(self) -> None:
        env = joint(Nim())
        seen = history(env, [{"one": 0, "two": 1}, {"one": 1, "two": 0}, {"one": 1, "two": 1}, {"one": 1, "two": 0}])
        assert [int(o["agent"]["one"]["left"]) for o, *_ in seen] == [5, 4, 3, 1, 0]
        assert [int(o["agent"]["two"]["left"]) for o, *_ in seen] == [5, 4, 3, 1, 0]
        assert [[int(o["agent"][n]["turn"]) for n in ("one", "two")] for o, *_ in seen][:4] == [
            [1, 0],
            [0, 1],
            [1, 0],
            [0, 1],
        ]

    def test_the_last_turn_pays_both_and_ends_for_both(self) -> None:
        seen = history(joint(Nim()), [{"one": 1, "two": 1}, {"one": 0, "two": 1}, {"one": 0, "two": 0}])
        last, reward, terminated, truncated = seen[-1]
        assert (terminated, truncated, reward) == (True, False, 0.0)
        paid = {n: float(last["training"][n]["reward"]) for n in ("one", "two")}
        assert paid == {"one": 1.0, "two": -1.0}
        assert all(last["training"][n]["terminal"] == 1 and last["agent"][n]["alive"] == 1 for n in paid)

    def test_an_empty_mask_means_that_nothing_needs_keeping_from(self) -> None:
        observation, _ = joint(Nim()).reset()
        assert observation["agent"]["two"]["action_mask"].tolist() == [1, 1]


class TestAspects:
    SPEC = AspectSpec({"goal": Aspect("goal"), "near": Aspect("place", 0, 2)})
    FULL = spaces.Dict({"goal": spaces.Discrete(3), "place": spaces.Box(-1, 1, (4,), np.float32)})

    def test_an_observation_is_constructed_of_copies_of_the_declared_parts(self) -> None:
        whole = {"goal": np.int64(2), "place": np.array([1, 2, 3, 4], np.float32)}
        part = self.SPEC.construct(whole)
        assert part.keys() == {"goal", "near"} == set(self.SPEC.space(self.FULL).spaces)
        whole["place"][:] = 0
        assert part["near"].tolist() == [1, 2] and part["goal"] == 2

    def test_mistakes_are_named(self) -> None:
        with pytest.raises(InvalidOption, match="ann has no aspect 'far': there are goal, near"):
            self.SPEC.only("ann", ["far"])
        with pytest.raises(InvalidOption, match="no entry 'smell'"):
            Aspect("smell").space(self.FULL)
        with pytest.raises(InvalidOption, match="numbers 2 to 9 are not all in"):
            Aspect("place", 2, 9).space(self.FULL)
        with pytest.raises(InvalidOption, match="no aspects are declared for the agent 'a'"):
            joint(Mayflies(), {"a": ["goal"]})

    def test_what_is_not_declared_changes_nothing_that_is_seen(self) -> None:
        """While Sally is out, the marble may lie anywhere: what she sees is the same."""
        one, other = Boxes(), Boxes()
        for env, marble in ((one, 0), (other, 2)):
            env.reset(seed=0)
            env.here, env.marble = 0, marble
        assert one._observe()["sally"] == other._observe()["sally"]
        assert one._observe()["anne"] != other._observe()["anne"], "the control: Anne sees it"


class TestRegistry:
    def test_a_suite_may_return_a_pettingzoo_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Suite:
            name, description, requirement = "insects", "", NOTHING

            def tasks(self) -> list[str]:
                return ["mayflies"]

            def make(self, task: str, **options: Any) -> Any:
                return Mayflies()

        monkeypatch.setattr(registry, "_registered", {})
        registry.register(Suite())
        env = registry.make("insects/mayflies")
        keys = flatten_observation_space(env.observation_space)
        assert {"agent/a/obs", "agent/a/alive", "training/a/reward", "training/a/terminal"} <= keys.keys()
        assert sorted(flatten_action_space(env.action_space)) == ["action/a", "action/b", "action/c"]

    def test_names_that_joint_steps_use_are_refused(self) -> None:
        class Taken(Mayflies):
            def observation_space(self, agent: str) -> spaces.Space[Any]:
                return spaces.Dict({"alive": spaces.Discrete(2)})

        with pytest.raises(UnsupportedSpace, match="a observes an entry 'alive'"):
            joint(Taken())


def test_boxes_goes_on_from_its_state() -> None:
    env = registry.make("minds/boxes")
    rng = np.random.default_rng(0)
    actions = [{n: int(rng.integers(3)) for n in ("anne", "sally")} for _ in range(19)]
    env.reset(seed=3)
    for action in actions[:7]:
        env.step(action)
    state = env.unwrapped.get_state()  # type: ignore[attr-defined]
    rest = [repr(env.step(action)) for action in actions[7:]]
    other = registry.make("minds/boxes")
    other.reset(seed=9)
    other.unwrapped.set_state(state)  # type: ignore[attr-defined]
    assert [repr(other.step(action)) for action in actions[7:]] == rest


def test_knowing_what_sally_believes_pays_anne_more_than_knowing_the_truth() -> None:
    env = joint(Boxes())
    paid = {"truth": 0.0, "mind": 0.0}
    for anne in paid:
        for episode in range(200):
            observation, _ = env.reset(seed=episode)
            believed, over = 0, False
            while not over:
                seen = int(observation["agent"]["sally"]["seen"])
                believed = believed if seen == 3 else seen
                marble = int(observation["agent"]["anne"]["marble"])
                action = {"sally": believed, "anne": marble if anne == "truth" else believed}
                observation, _, terminated, truncated, _ = env.step(action)
                paid[anne] += float(observation["training"]["anne"]["reward"]) / 200
                over = terminated or truncated
    assert paid["mind"] == pytest.approx(20)
    assert 13 < paid["truth"] < 17
