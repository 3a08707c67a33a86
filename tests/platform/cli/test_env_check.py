"""Environments that break their contract, each in one way, are told of in words that name it."""

import json
import mmap
import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from oneiros.envs.contract import UnsupportedSpace
from oneiros.platform.cli.env_check import check_environment, sample_action


class Sound(gymnasium.Env):
    """Counts to ten."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        return self.observe(), 1.0, self.t == 10, False, {}

    def observe(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


def broken(**methods):
    return type("Broken", (Sound,), methods)


def step_of(**changes):
    def step(self, action):
        values = dict(zip(("obs", "reward", "terminated", "truncated", "info"), Sound.step(self, action), strict=True))
        return tuple((values | {key: make(self) for key, make in changes.items()}).values())

    return step


def leak(self):
    self.kept = getattr(self, "kept", [])
    # A map of its own: what other tests have freed would hide the growth of a heap.
    self.kept.append(mmap.mmap(-1, 1 << 17))
    self.kept[-1].write(bytes(1 << 17))
    time.sleep(0.001)  # An idle machine would keep gigabytes else.
    return Sound.observe(self)


def same_array(self):
    self.array = getattr(self, "array", np.zeros(3, np.float32))
    self.array[:] = Sound.observe(self)
    return self.array


def orphan(self, *, seed=None, options=None):
    if not hasattr(self, "child"):
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6)"])
    return Sound.reset(self, seed=seed, options=options)


def close_badly(self):
    raise OSError("no display")


def unseeded(self):
    return np.random.uniform(-1, 1, 3).astype(np.float32)


def reset_alone(self, *, seed=None, options=None):
    return Sound.reset(self, seed=seed)[0]


BREAKS = {
    "shape": (broken(observe=lambda s: np.zeros(4, np.float32)), "an observation of shape (4,): the space says (3,)"),
    "dtype": (broken(observe=lambda s: np.zeros(3)), "an observation of dtype float64: the space says float32"),
    "bounds": (broken(observe=lambda s: np.array([0, 0, 7], np.float32)), "index [2] is bounded by -1.0 and 1.0"),
    "nan": (broken(observe=lambda s: np.full(3, np.nan, np.float32)), "an observation that is not finite"),
    "list": (broken(observe=lambda s: [0.0] * 3), "an observation of type list: it must be a numpy array"),
    "reward": (broken(step=step_of(reward=lambda s: np.inf)), "the reward inf: it must be finite"),
    "array": (broken(step=step_of(reward=lambda s: np.ones(1))), "a reward of type ndarray: it must be a number"),
    "flag": (broken(step=step_of(terminated=lambda s: int(s.t == 10))), "terminated of type int: it must be a bool"),
    "info": (broken(step=step_of(info=lambda s: None)), "info of type NoneType: it must be a dict"),
    "four": (broken(step=lambda s, a: Sound.step(s, a)[:4]), "step() must return (observation, reward, terminated"),
    "reset": (broken(reset=reset_alone), "reset() must return (observation, info), not ndarray"),
    "raises": (broken(step=step_of(reward=lambda s: 1 / (s.t - 5))), "raises ZeroDivisionError after 4 steps"),
    "aliased": (broken(observe=same_array), "writes into the observation that it returned before"),
    "close": (broken(close=close_badly), "close() raises OSError: no display"),
    "orphan": (broken(reset=orphan), "close() leaves 1 processes running"),
}
ADVICE = {
    "unseeded": (broken(observe=unseeded), "draw random numbers from self.np_random"),
    "endless": (broken(step=step_of(terminated=lambda s: False)), "no episode ended within"),
    "leak": (broken(observe=leak), "memory grows by"),
}


@pytest.mark.parametrize("case", [*BREAKS, *ADVICE])
def test_each_fault_is_named(case):
    kind, words = {**BREAKS, **ADVICE}[case]
    # Growth shows over some hundred steps, which a busy machine takes its time for.
    report = check_environment(case, kind, seconds=2.0 if case == "leak" else 0.5)
    found = [finding for finding in report.findings if words in finding.text]
    assert found and all(finding.breaks is (case in BREAKS) for finding in found), report.findings
    assert report.broken is (case in BREAKS)


def test_a_fault_that_never_looks_the_same_twice_is_not_told_of_forever():
    kind = broken(observe=lambda s: s.np_random.uniform(-9, 9, 3).astype(np.float32))
    report = check_environment("wild", kind, seconds=0.3)
    assert report.broken and len(report.findings) <= 10


def test_a_sound_environment_has_no_findings_and_known_figures():
    report = check_environment("sound", Sound, seconds=0.3)
    assert report.findings == [] and report.episodes == report.steps // 10 and report.longest_episode == 10
    assert report.steps_per_s > 100


def test_entries_of_nested_observations_are_named():
    class Nested(Sound):
        observation_space = spaces.Dict({"eye": spaces.Box(0, 255, (4, 4, 3), np.uint8), "joint": spaces.Discrete(3)})

        def observe(self):
            return {"eye": np.zeros((4, 4, 3), np.int64), "nose": 1}

    report = check_environment("nested", Nested, seconds=0.1)
    texts = " | ".join(finding.text for finding in report.findings)
    assert "an observation's entry 'eye' of dtype int64: the space says uint8" in texts
    assert "without the entry 'joint'" in texts and "with the entry 'nose', which the space lacks" in texts


def test_only_legal_actions_are_tried():
    class Masked(Sound):
        observation_space = spaces.Dict({"action_mask": spaces.Box(0, 1, (3,), np.int8)})
        action_space = spaces.Discrete(3)

        def observe(self):
            return {"action_mask": np.array([0, 1, 0], np.int8)}

        def step(self, action):
            assert action == 1, "an illegal action"
            return super().step(action)

    assert check_environment("masked", Masked, seconds=0.1).findings == []
    assert sample_action(Masked.action_space, Masked().observe()) == 1


def test_a_space_that_no_agent_can_have_is_a_mistake_at_once():
    class Talker(Sound):
        observation_space = spaces.Text(5)

    with pytest.raises(UnsupportedSpace, match="Text"):
        check_environment("talker", Talker, seconds=0.1)


def test_the_command_prints_the_findings_and_ends_with_1(oneiros, tmp_path, monkeypatch):
    spec = gymnasium.envs.registration.EnvSpec("Broken-v0", BREAKS["dtype"][0], max_episode_steps=20)
    monkeypatch.setitem(gymnasium.registry, "Broken-v0", spec)
    code, out, _ = oneiros("envs", "check", "Broken-v0", "--seconds", "0.2", "--json", "out.json")
    assert code == 1 and "BREAKS  step() returns an observation of dtype float64: the space says float32" in out
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["broken"] and report["steps"] > 0

    code, out, _ = oneiros(
        "envs", "check", "CartPole-v1", "--seconds", "0.2", "--option", "time_limit=7", "--json", "o.json"
    )
    assert code == 0 and "CartPole-v1 keeps the contract." in out
    assert json.loads((tmp_path / "o.json").read_text())["longest_episode"] == 7
