"""An environment at the other end of a socket, and everything that can go wrong on the way."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from oneiros.envs import registry
from oneiros.envs.contract import InvalidOption
from oneiros.envs.external.client import Client, EpisodeLost, Refused
from oneiros.envs.external.env import ExternalEnv
from oneiros.envs.external.trees import flatten, unflatten
from oneiros.envs.external.wire import WireError, receive, send
from oneiros.envs.space_json import space_to_json
from oneiros.envs.vector.fault import EnvironmentFault

OBS = spaces.Dict({"image": spaces.Box(0, 255, (4, 4, 3), np.uint8), "speed": spaces.Box(-1, 1, (2,))})
ACTION = spaces.Dict({"gear": spaces.Discrete(3), "wheel": spaces.Box(-1, 1, (2,))})


def observation(value: int) -> dict[str, Any]:
    return {"image": np.full((4, 4, 3), value, np.uint8), "speed": np.full(2, value / 10, np.float32)}


@pytest.fixture
def make_env() -> Iterator[Callable[..., ExternalEnv]]:
    made: list[ExternalEnv] = []

    def make(**options: Any) -> ExternalEnv:
        values: dict[str, Any] = {"timeout": 5.0, "patience": 10.0, "observation_space": OBS, "action_space": ACTION}
        made.append(ExternalEnv("127.0.0.1", 0, **(values | options)))
        return made[-1]

    yield make
    for env in made:
        env.close()


def client_for(env: ExternalEnv, **options: Any) -> Client:
    given: dict[str, Any] = {"timeout": 5.0, "patience": 5.0}
    return Client("127.0.0.1", env.port, OBS, ACTION, **(given | options))


def play(env: ExternalEnv, episodes: int, heard: list[Any], **options: Any) -> threading.Thread:
    """Episodes of three steps in a thread; the actions that arrive are kept."""

    def run() -> None:
        with client_for(env, **options) as agent:
            for _ in range(episodes):
                action, step = agent.begin(observation(0)), 0
                while action is not None:
                    heard.append(action)
                    step += 1
                    action = agent.step(observation(step), step / 2, terminated=step == 3)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_observations_and_actions_arrive_as_they_were_sent(make_env: Callable[..., ExternalEnv]) -> None:
    env, heard = make_env(), []
    thread = play(env, episodes=2, heard=heard)
    sent = []
    for _ in range(2):
        obs, _ = env.reset(seed=1)
        assert OBS.contains(obs) and not obs["image"].any()
        for step in (1, 2, 3):
            sent.append({"gear": np.int64(step % 3), "wheel": np.array([0.25, -step / 3], np.float32)})
            obs, reward, terminated, truncated, _ = env.step(sent[-1])
            assert OBS.contains(obs) and (obs["image"] == step).all()
            assert (reward, terminated, truncated) == (step / 2, step == 3, False)
    thread.join(10)
    assert len(heard) == 6
    for one, other in zip(heard, sent, strict=True):
        assert one["gear"] == other["gear"]
        np.testing.assert_array_equal(one["wheel"], other["wheel"])


def test_a_client_that_leaves_costs_its_episode_and_the_next_one_goes_on(make_env: Callable[..., ExternalEnv]) -> None:
    env = make_env()
    first = client_for(env)
    threading.Thread(target=lambda: (first.begin(observation(0)), first.close())).start()
    env.reset()
    action = ACTION.sample()
    with pytest.raises(EnvironmentFault, match=r"left|reached"):
        for _ in range(3):
            env.step(action)
    thread = play(env, episodes=1, heard=[])
    env.reset()
    assert env.step(action)[1] == 0.5
    env.step(action), env.step(action)
    thread.join(10)


def test_a_silent_client_is_given_up_after_its_time(make_env: Callable[..., ExternalEnv]) -> None:
    env = make_env(timeout=0.5)
    client = client_for(env, patience=0.1)
    actions: list[Any] = []
    thread = threading.Thread(target=lambda: actions.append(client.begin(observation(0))))
    thread.start()
    env.reset()
    start = time.monotonic()
    with pytest.raises(EnvironmentFault, match="hang"):
        env.step(ACTION.sample())
    assert 0.4 < time.monotonic() - start < 3
    thread.join(10)
    with pytest.raises(EpisodeLost, match="nothing was heard"):
        client.step(observation(1), 0.0)


def test_nobody_comes(make_env: Callable[..., ExternalEnv]) -> None:
    env = make_env(patience=0.3)
    with pytest.raises(EnvironmentFault, match="no client came"):
        env.reset()
    with pytest.raises(ConnectionError, match="no trainer took"), socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        Client("127.0.0.1", unused.getsockname()[1], OBS, ACTION, patience=0.1).begin(observation(0))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"token": "secret", "observation_space": spaces.Box(-1, 1, (3,))}, "observation space is Box"),
        ({"token": "secret", "action_space": spaces.Discrete(2)}, "action space is Discrete"),
        ({"token": "wrong"}, "token is wrong"),
        ({}, "token is wrong"),
    ],
)
def test_the_wrong_client_is_refused_with_the_reason(
    make_env: Callable[..., ExternalEnv], changes: dict[str, Any], reason: str
) -> None:
    env = make_env(token="secret", patience=1.0)
    given: dict[str, Any] = {"observation_space": OBS, "action_space": ACTION, "patience": 2.0, **changes}
    caught: list[BaseException] = []

    def knock() -> None:
        try:
            Client("127.0.0.1", env.port, **given).begin(observation(0))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=knock)
    thread.start()
    with pytest.raises(EnvironmentFault):
        env.reset()
    thread.join(10)
    assert isinstance(caught[0], Refused) and reason in str(caught[0])


def test_one_trainer_is_busy_and_the_next_port_takes_the_second_client(make_env: Callable[..., ExternalEnv]) -> None:
    one = make_env()
    # The port after is taken by another runner as soon as there are two.
    other = ExternalEnv("127.0.0.1", one.port, 5.0, 10.0, None, OBS, ACTION)
    try:
        assert other.port > one.port
        span = other.port - one.port + 1
        heard: list[Any] = []
        threads = [play(one, 1, heard, ports=span)]
        one.reset()
        threads.append(play(one, 1, heard, ports=span))

        def rest(env: ExternalEnv, started: bool) -> None:
            if not started:
                env.reset()
            for _ in range(3):
                env.step(ACTION.sample())

        workers = [threading.Thread(target=rest, args=args) for args in ((one, True), (other, False))]
        time.sleep(0.3)
        for worker in workers:
            worker.start()
        for thread in [*workers, *threads]:
            thread.join(20)
            assert not thread.is_alive()
        assert len(heard) == 6
    finally:
        other.close()


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 1 << 31),
        struct.pack(">I", 4) + b"nope",
        struct.pack(">I", 2) + b"[]",
        (lambda head: struct.pack(">I", len(head)) + head)(
            json.dumps({"type": "hello", "arrays": [{"name": "x", "dtype": "object", "shape": [1]}]}).encode()
        ),
        (lambda head: struct.pack(">I", len(head)) + head)(
            json.dumps({"type": "hello", "arrays": [{"name": "x", "dtype": "uint8", "shape": [1 << 40]}]}).encode()
        ),
    ],
)
def test_noise_on_the_port_hurts_nobody(make_env: Callable[..., ExternalEnv], bytes_sent: bytes) -> None:
    env = make_env()
    with socket.create_connection(("127.0.0.1", env.port)) as stranger:
        stranger.sendall(bytes_sent)
        stranger.shutdown(socket.SHUT_WR)
        thread = play(env, episodes=1, heard=[])
        env.reset()
        for _ in range(3):
            env.step(ACTION.sample())
        thread.join(10)


def test_the_first_client_brings_the_spaces() -> None:
    made: list[gymnasium.Env[Any, Any]] = []
    port = free_port()
    thread = threading.Thread(target=lambda: made.append(registry.make("external/socket", port=port, patience=20.0)))
    thread.start()
    client = Client("127.0.0.1", port, OBS, ACTION, patience=2.0, timeout=10.0, ports=64)

    def begin() -> None:
        with contextlib.suppress(ConnectionError):  # The trainer closes before it has sent an action.
            client.begin(observation(7))

    playing = threading.Thread(target=begin)
    playing.start()
    thread.join(20)
    assert made[0].observation_space == OBS and made[0].action_space == ACTION
    obs, _ = made[0].reset()
    assert (obs["image"] == 7).all()
    made[0].close()
    playing.join(1)
    client.close()


@pytest.mark.parametrize("options", [{"port": -1}, {"timeout": 0}, {"patience": "long"}, {"speed": 3}])
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        registry.make("external/socket", **options)


@pytest.mark.parametrize(
    "space",
    [OBS, ACTION, spaces.Tuple([spaces.Discrete(4, start=2), spaces.MultiDiscrete([2, 3])]), spaces.Box(0, 1, ())],
)
def test_trees_survive_the_wire(space: spaces.Space[Any]) -> None:
    one, other = socket.socketpair()
    space.seed(3)
    value = space.sample()
    with one, other:
        send(one, "x", flatten(space, value), extra=[1, 2])
        kind, arrays, fields = receive(other)
        assert (kind, fields) == ("x", {"extra": [1, 2]})
        assert space.contains(unflatten(space, arrays))
        one.close()
        with pytest.raises(WireError):
            receive(other)


def test_the_client_needs_neither_torch_nor_ray() -> None:
    code = "import sys, oneiros.envs.external.client; print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


ROBOT = """
import sys, gymnasium
from oneiros.envs.external.client import Client, EpisodeLost
env = gymnasium.make("CartPole-v1")
with Client("127.0.0.1", int(sys.argv[1]), env.observation_space, env.action_space, ports=8, patience=60) as agent:
    for _ in range(100_000):
        try:
            obs, _ = env.reset()
            action = agent.begin(obs)
            while action is not None:
                obs, reward, terminated, truncated, _ = env.step(int(action))
                action = agent.step(obs, reward, terminated, truncated)
        except EpisodeLost:
            pass
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_an_agent_trains_on_an_environment_in_another_process() -> None:
    from oneiros.platform.config import RunConfig
    from oneiros.platform.training.engine import open_engine

    cartpole = gymnasium.make("CartPole-v1")
    described = [space_to_json(s) for s in (cartpole.observation_space, cartpole.action_space)]
    port = free_port()
    robots = [subprocess.Popen([sys.executable, "-c", ROBOT, str(port)]) for _ in range(2)]
    try:
        options = {"port": port, "observation_space": described[0], "action_space": described[1], "patience": 30.0}
        engine = open_engine(
            RunConfig(
                env="external/socket",
                env_options=options,
                agent="linear_agent:LinearAgent",
                engine="local",
                num_envs_per_runner=2,
                train_ratio=8,
                learning_starts=50,
                replay={"capacity": 2_000, "on_disk": False},
            )
        )
        try:
            while engine.env_steps < 200:
                metrics = engine.step()
            robots[0].kill()
            robots.append(subprocess.Popen([sys.executable, "-c", ROBOT, str(port)]))
            while engine.env_steps < 400:
                metrics = engine.step()
            assert metrics["updates"] > 20 and metrics["episodes"] > 5
            assert metrics["faults/env_died"] >= 1
        finally:
            engine.close()
    finally:
        for robot in robots:
            robot.kill()
            robot.wait()


CARTPOLE_AS_A_ROBOT = """
import gymnasium

class Robot:
    def __init__(self):
        self.env = gymnasium.make("CartPole-v1")
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
        self.steps = 0

    def observe(self):
        if self.steps >= 60:
            agent.patience = 0.1  # the training ends after as many: who looks for another waits in vain
        return self.env.reset()[0]

    def do(self, action):
        self.steps += 1
        return self.env.step(int(action))[:4]

robot = Robot()
"""


def test_the_words_of_the_readme_train_a_robot(tmp_path: Path) -> None:
    port = str(free_port())
    readme = (Path(__file__).parents[3] / "README.md").read_text().replace("7431", port)
    (command,) = re.findall(r"`oneiros (train external/socket [^`]*)`", readme)
    (client,) = re.findall(r"```python\n(from oneiros\.envs\.external\.client .*?)```", readme, flags=re.DOTALL)
    shorter = ["--engine", "local", "--env-steps", "60", "--set", "tracking.mlflow=false", "--run-dir", "robot"]
    trainer = [sys.executable, "-m", "oneiros.platform.cli", *command.split(), *shorter]
    with subprocess.Popen(
        [sys.executable, "-c", CARTPOLE_AS_A_ROBOT + client], stderr=subprocess.PIPE, text=True
    ) as robot:
        try:
            trained = subprocess.run(trainer, cwd=tmp_path, capture_output=True, text=True, timeout=300)
            assert trained.returncode == 0, trained.stderr
            _, complaints = robot.communicate(timeout=300)
            assert (robot.returncode, complaints) == (0, "")
        finally:
            robot.kill()
    assert list((tmp_path / "robot" / "checkpoints").iterdir())
