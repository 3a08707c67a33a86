"""The suites of published benchmarks: their own numbers, their preprocessing, their endings."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from oneiros.envs import registry
from oneiros.envs.contract import InvalidOption, MissingDependency, UnknownEnvironment
from oneiros.envs.crafter_suite import ACHIEVEMENTS, LOG, score
from oneiros.envs.spaces import flatten_observation_space


def need(module: str, extra: str) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'oneiros[{extra}]'")


def play(env: Any, steps: int, seed: int = 0) -> list[Any]:
    """Everything that random play returns, resets included."""
    rng = np.random.default_rng(seed)
    seen: list[Any] = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(int(rng.integers(env.action_space.n)))
        seen.append((observation, float(reward), terminated, truncated, info))
        if terminated or truncated:
            seen.append(env.reset()[0])
    return seen


def assert_repeats(make: Any, steps: int) -> None:
    one, two = play(make(), steps), play(make(), steps)
    np.testing.assert_equal(one, two)


class TestCrafterScore:
    def test_closed_forms(self) -> None:
        assert score([0.0] * 22) == 0.0
        assert score([1.0] * 22) == pytest.approx(100.0)
        assert score([0.5] * 22) == pytest.approx(50.0)
        # One achievement always, the others never: the 22nd root of 101, less one.
        assert score([1.0] + [0.0] * 21) == pytest.approx(101 ** (1 / 22) - 1)
        assert score({"wake_up": 1.0, "anything else": 0.3}) == pytest.approx(101 ** (1 / 22) - 1)

    def test_a_rare_achievement_counts_more_than_a_common_one(self) -> None:
        base = np.full(22, 0.5)
        rare, common = base.copy(), base.copy()
        base[0] = rare[0] = common[0] = 0.01
        rare[0] += 0.05
        common[1] += 0.05
        assert score(list(rare)) - score(list(base)) > 5 * (score(list(common)) - score(list(base)))

    def test_bad_rates(self) -> None:
        with pytest.raises(ValueError, match="22 success rates"):
            score([0.5] * 21)
        with pytest.raises(ValueError, match="between 0 and 1"):
            score([50.0] * 22)


class TestCrafter:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        need("crafter", "crafter")

    def test_spaces_and_achievements(self) -> None:
        import crafter

        env = registry.make("crafter/reward", size=[48, 32], time_limit=5)
        assert tuple(crafter.constants.achievements) == ACHIEVEMENTS
        seen = play(env, 5)
        assert env.observation_space == spaces.Box(0, 255, (48, 32, 3), np.uint8)
        assert env.observation_space.contains(seen[0]) and seen[0].std() > 5
        assert env.action_space == spaces.Discrete(17)
        assert seen[5][2:4] == (False, True)

    def test_death_terminates_and_tells_what_was_unlocked(self) -> None:
        env = registry.make("crafter/reward")
        env.reset(seed=0)
        player: Any = env.unwrapped._env._player  # type: ignore[attr-defined]
        player.achievements["wake_up"] = 2
        player.health = 0
        _, _, terminated, truncated, info = env.step(0)
        assert (terminated, truncated) == (True, False)
        assert {key.removeprefix(LOG) for key in info} == set(ACHIEVEMENTS)
        assert info[LOG + "wake_up"] == 1.0 and sum(info.values()) == 1.0

    def test_worlds_repeat_under_a_seed(self) -> None:
        assert_repeats(lambda: registry.make("crafter/reward"), 60)

    def test_no_reward(self) -> None:
        assert {step[1] for step in play(registry.make("crafter/noreward"), 10)[1:]} == {0.0}


class TestAtari:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        need("ale_py", "atari")

    @pytest.mark.parametrize(
        "env_id, shape, actions", [("atari/pong", (96, 96, 1), 18), ("atari100k/pong", (64, 64, 3), 6)]
    )
    def test_the_papers_settings(self, env_id: str, shape: tuple[int, ...], actions: int) -> None:
        env = registry.make(env_id)
        seen = play(env, 40)
        assert env.observation_space == spaces.Box(0, 255, shape, np.uint8)
        assert env.action_space == spaces.Discrete(actions)
        for step in seen[1:]:
            assert env.observation_space.contains(step[0])
        assert np.std([step[0].astype(float) for step in seen[1:]], axis=0).max() > 10

    def test_an_action_lasts_four_frames(self) -> None:
        env = registry.make("atari100k/pong", noops=0)
        env.reset(seed=0)
        ale = env.unwrapped._ale  # type: ignore[attr-defined]
        before = ale.getEpisodeFrameNumber()
        env.step(0)
        assert ale.getEpisodeFrameNumber() - before == 4

    def test_sticky_actions_make_the_same_play_differ(self) -> None:
        def fates(env_id: str) -> int:
            ends = set()
            for seed in range(3):
                env = registry.make(env_id, noops=0, full_actions=False)
                env.reset(seed=seed)
                image = [env.step(2 + (step // 3) % 2)[0] for step in range(30)][-1]
                ends.add(image.tobytes())
            return len(ends)

        assert fates("atari/pong") > 1
        assert fates("atari100k/pong") == 1

    def test_random_noops_begin_episodes_differently(self) -> None:
        starts = set()
        for seed in range(4):
            env = registry.make("atari100k/space_invaders")
            env.reset(seed=seed)
            starts.add(env.unwrapped._ale.getEpisodeFrameNumber())  # type: ignore[attr-defined]
        assert len(starts) > 1 and max(starts) <= 31

    def test_play_repeats_under_a_seed(self) -> None:
        assert_repeats(lambda: registry.make("atari/breakout"), 30)

    def test_its_state_restores_exactly(self) -> None:
        env, other = registry.make("atari/breakout"), registry.make("atari/breakout")
        play(env, 30, seed=1)
        play(other, 10, seed=2)
        other.unwrapped.set_state(env.unwrapped.get_state())  # type: ignore[attr-defined]
        for action in [1, 3, 4, 0] * 10:
            np.testing.assert_equal(env.step(action), other.step(action))
        np.testing.assert_equal(env.reset(), other.reset())

    def test_a_lost_life_may_end_an_episode_without_ending_the_game(self) -> None:
        env = registry.make("atari100k/breakout", lives="terminate")
        env.reset(seed=0)
        ale = env.unwrapped._ale  # type: ignore[attr-defined]
        lives = [ale.lives()]
        for _ in range(2):
            while not env.step(1)[2]:
                continue
            env.reset()
            lives.append(ale.lives())
        assert lives == [5, 4, 3]

    def test_the_time_limit_truncates(self) -> None:
        env = registry.make("atari/pong", time_limit=3)
        env.reset(seed=0)
        assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]

    def test_options(self) -> None:
        assert registry.make("atari/pong", size=64, grayscale=False).observation_space.shape == (64, 64, 3)
        assert registry.make("atari/adventure") is not None  # shipped, though not one of the 57
        with pytest.raises(UnknownEnvironment, match="did you mean 'atari/pong'"):
            registry.make("atari/pongg")
        with pytest.raises(InvalidOption, match="lives unused and terminate, not 'all'"):
            registry.make("atari/pong", lives="all")
        assert len(registry.find("atari/x")[0].tasks()) == 57 and len(registry.find("atari100k/x")[0].tasks()) == 26

    def test_gymnasiums_own_ids_keep_their_settings(self) -> None:
        assert registry.make("ALE/Pong-v5").observation_space.shape == (210, 160, 3)


class TestMiniGrid:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        need("minigrid", "minigrid")

    @pytest.mark.parametrize(
        "env_id, mission",
        [
            ("minigrid/Empty-5x5-v0", False),
            ("MiniGrid-Empty-5x5-v0", False),
            ("minigrid/Fetch-5x5-N2-v0", True),
            ("minigrid/BabyAI-GoToObj-v0", True),
        ],
    )
    def test_observations(self, env_id: str, mission: bool) -> None:
        env = registry.make(env_id)
        assert env.observation_space["image"].shape == (56, 56, 3)  # type: ignore[index]
        assert ("mission" in env.observation_space.spaces) == mission  # type: ignore[attr-defined]
        flatten_observation_space(env.observation_space)
        for step in play(env, 20)[1:]:
            if isinstance(step, tuple):
                assert env.observation_space.contains(step[0])

    def test_missions_are_numbers_of_words(self) -> None:
        from oneiros.envs.minigrid_suite import WORDS

        env = registry.make("minigrid/Fetch-5x5-N2-v0")
        observation, _ = env.reset(seed=0)
        words = env.unwrapped.mission.split()  # type: ignore[attr-defined]
        assert [WORDS[number - 1] for number in observation["mission"][: len(words)]] == words
        assert not observation["mission"][len(words) :].any()

    def test_every_mission_is_in_the_vocabulary(self, capsys: pytest.CaptureFixture[str]) -> None:
        suite = registry.find("minigrid/x")[0]
        for task in suite.tasks()[::9]:
            if "WFC" not in task:
                env = registry.make(f"minigrid/{task}", mission=True)
                observation, _ = env.reset(seed=1)
                assert observation["mission"].max() <= 54, task

    def test_options(self) -> None:
        env = registry.make("minigrid/Empty-8x8-v0", view="full", mission=True, size=64)
        assert env.observation_space["image"].shape == (64, 64, 3)  # type: ignore[index]
        with pytest.raises(InvalidOption, match="views partial and full, not 'top'"):
            registry.make("minigrid/Empty-8x8-v0", view="top")
        with pytest.raises(InvalidOption, match="takes no such option"):
            registry.make("minigrid/Empty-8x8-v0", speed=1)
        with pytest.raises(UnknownEnvironment, match="did you mean 'minigrid/Empty-8x8-v0'"):
            registry.make("minigrid/Emty-8x8-v0")


class TestBehaviourSuite:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        need("bsuite", "bsuite")

    def test_our_list_of_settings_is_theirs(self) -> None:
        from bsuite import sweep

        assert set(registry.find("bsuite/x")[0].tasks()) == set(sweep.SWEEP)

    @pytest.mark.parametrize("task", ["catch/0", "memory_len/3", "cartpole_noise/2", "bandit_scale/1"])
    def test_vectors_and_scores(self, task: str, capsys: pytest.CaptureFixture[str]) -> None:
        env = registry.make(f"bsuite/{task}")
        seen = play(env, 60)
        assert capsys.readouterr().out == ""
        for step in seen[1:]:
            if isinstance(step, tuple):
                assert env.observation_space.contains(step[0])
        ends = [step for step in seen[1:] if isinstance(step, tuple) and (step[2] or step[3])]
        if task != "cartpole_noise/2":
            assert ends and all(key.startswith("log_") for step in ends for key in step[4])
        assert_repeats(lambda: registry.make(f"bsuite/{task}"), 60)

    def test_digits_that_cannot_be_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from urllib.error import URLError

        import bsuite

        def fails(name: str) -> Any:
            raise URLError("no route")

        monkeypatch.setattr(bsuite, "load_from_id", fails)
        with pytest.raises(MissingDependency, match="downloads the MNIST digits, which failed: no route"):
            registry.make("bsuite/mnist/0")


class FakeProcGen:
    """ProcGen's documented interface (gym3): observe() gives reward, observation, first; act() advances."""

    def __init__(self, num: int, env_name: str, **options: Any) -> None:
        self.options, self.t = options, 0

    def observe(self) -> Any:
        first = self.t % 4 == 0
        reward = 10.0 if first and self.t else 0.0
        rgb = np.full((1, 64, 64, 3), self.t, np.uint8)
        return np.array([reward], np.float32), {"rgb": rgb}, np.array([first])

    def act(self, action: Any) -> None:
        assert action.shape == (1,) and action.dtype == np.int32
        self.t += 1

    def close(self) -> None:
        self.t = -1


class TestProcGen:
    def test_without_the_package_it_says_so(self) -> None:
        status = next(suite for suite in registry.suites() if suite.name == "procgen")
        if status.available:
            pytest.skip("procgen is installed")
        assert len(status.tasks) == 16 and "from source" in status.install
        with pytest.raises(MissingDependency, match="needs procgen"):
            registry.make("procgen/coinrun")

    def test_episodes_end_where_the_game_resets_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = ModuleType("procgen")
        fake.ProcgenGym3Env = FakeProcGen  # type: ignore[attr-defined]
        fake.__spec__ = type(sys.__spec__)("procgen", None)  # type: ignore[misc, arg-type]
        monkeypatch.setitem(sys.modules, "procgen", fake)
        env = registry.make("procgen/coinrun", levels=200)
        assert env.unwrapped._games.options["num_levels"] == 200  # type: ignore[attr-defined]
        env.reset()
        steps = [env.step(0) for _ in range(4)]
        assert [int(step[0].max()) for step in steps] == [1, 2, 3, 3]
        assert [step[1:4] for step in steps] == [(0, False, False)] * 3 + [(10, True, False)]
        assert int(env.reset()[0].max()) == 4
        with pytest.raises(InvalidOption, match="difficulties easy and hard, not 'wild'"):
            registry.make("procgen/coinrun", difficulty="wild")
