"""Episodes out of a replay, into files and back, and what is said of files that do not fit."""

import json

import numpy as np
import pytest
from gymnasium import spaces
from oneiros.envs.spaces import ActionCodec, ObservationCodec
from oneiros.platform.checkpoint import read_manifest
from oneiros.platform.data import DataError, Episode, fill, open_data
from oneiros.platform.data.episode import from_rows, to_rows
from oneiros.platform.data.filling import checked, require_same_spaces
from oneiros.platform.data.minari_folder import write_minari
from oneiros.platform.data.npz_folder import write_folder
from oneiros.platform.data.replay_episodes import ReplayEpisodes
from oneiros.platform.replay import Replay
from oneiros.platform.training.agents import experience_fields
from oneiros.platform.training.engine import open_engine
from tiny_run import tiny

SEEN = spaces.Dict(
    view=spaces.Box(0, 255, (16, 16), np.uint8),
    inner=spaces.Dict(speed=spaces.Box(-9, 9, (2,), np.float64), level=spaces.Discrete(3, start=1)),
)
DONE = spaces.Dict(arm=spaces.Box(-2, 4, (2,), np.float32), grip=spaces.Discrete(2, start=5))
WRITERS = {"npz": write_folder, "minari": write_minari}


def episode(steps, seed=0, terminated=True):
    """An episode of nested spaces whose actions come back exactly, being multiples of a power of two."""
    rng = np.random.default_rng(seed)
    return Episode(
        {
            "view": rng.integers(256, size=(steps + 1, 16, 16), dtype=np.uint8),
            "inner": {
                "speed": rng.integers(-8, 8, (steps + 1, 2)) / 4,
                "level": rng.integers(1, 4, steps + 1),
            },
        },
        {"arm": (rng.integers(-2, 5, (steps, 2))).astype(np.float32), "grip": rng.integers(5, 7, steps)},
        rng.normal(size=steps).astype(np.float32),
        terminated,
    )


def assert_same(one, other):
    for key in ("view",):
        np.testing.assert_array_equal(one.observations[key], other.observations[key])
    for key in ("speed", "level"):
        np.testing.assert_array_equal(one.observations["inner"][key], other.observations["inner"][key])
    np.testing.assert_allclose(one.actions["arm"], other.actions["arm"], atol=1e-6)
    np.testing.assert_array_equal(one.actions["grip"], other.actions["grip"])
    np.testing.assert_array_equal(one.rewards, other.rewards)
    assert one.terminated == other.terminated


def test_rows_and_episodes_are_two_ways_to_say_one_thing():
    observations, actions = ObservationCodec(SEEN), ActionCodec(DONE)
    given = episode(5, terminated=False)
    rows = to_rows(given, observations, actions)
    assert rows["is_first"].tolist() == [True] + [False] * 5 and rows["is_last"].tolist() == [False] * 5 + [True]
    assert not rows["is_terminal"].any() and rows["reward"][0] == 0
    assert rows["reward"][1:].tolist() == given.rewards.tolist()
    assert rows["inner/level"].max() <= 2 and rows["action/grip"].max() <= 1 and abs(rows["action/arm"]).max() <= 1
    assert rows["action/arm"][-1].tolist() == [0, 0] and rows["view"].shape == (6, 16, 16, 1)
    assert_same(from_rows(rows, observations, actions), given)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_data_set_comes_back_as_it_was_written(kind, tmp_path):
    if kind == "minari":
        pytest.importorskip("minari", reason="pip install 'oneiros[minari]'")
    given = [episode(4, 1), episode(7, 2, terminated=False), episode(1, 3)]
    assert WRITERS[kind](tmp_path / "set", given, (SEEN, DONE), "suite/task") == (3, 12)
    data = open_data(tmp_path / "set")
    assert (data.kind, data.env) == (kind, "suite/task")
    require_same_spaces("it", (data.observation_space, data.action_space), (SEEN, DONE))
    for one, other in zip(checked(data), given, strict=True):
        assert_same(one, other)
    with pytest.raises(DataError, match="set is not empty"):
        WRITERS[kind](tmp_path / "set", given, (SEEN, DONE), None)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a run whose replay has evicted the beginnings of episodes."""
    engine = open_engine(
        tiny(
            "CartPole-v1", agent="linear_agent:LinearAgent", hyper={}, train_ratio=0.5,
            replay={"capacity": 1_000, "on_disk": False},
        )
    )  # fmt: skip
    while engine.env_steps < 1_600:
        engine.step()
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    engine.save(path)
    rows = {
        stream: np.concatenate([chunk.rows.columns["reward"][: chunk.count] for chunk in chunks])
        for stream, chunks in by_stream(engine.core.replay).items()
    }
    engine.close()
    return path, rows


def by_stream(replay):
    found = {}
    for chunk in replay.chunks.values():
        found.setdefault(chunk.stream, []).append(chunk)
    return found


def test_every_whole_episode_of_a_replay_is_read_once(checkpoint):
    path, rows = checkpoint
    episodes = ReplayEpisodes(path, read_manifest(path))
    found = list(episodes)
    # CartPole pays 1 a step: the first rows of episodes, which pay nothing, count them.
    assert len(found) == sum(int((reward == 0).sum()) for reward in rows.values())
    assert episodes.cut == sum(bool(reward[0] != 0) for reward in rows.values()) > 0
    begun = sum(int((np.cumsum(reward == 0) > 0).sum()) for reward in rows.values())
    # Each episode has a row more than it has steps; one that ended at the last row written has but its first.
    assert sum(one.steps + 1 for one in found) in range(begun - 2, begun + 1)
    assert all((one.rewards == 1).all() and one.observations.shape == (one.steps + 1, 4) for one in found)
    assert {one.terminated for one in found} <= {True, False} and found[0].terminated
    assert all(set(np.unique(one.actions)) <= {0, 1} for one in found)


def test_a_replay_is_filled_by_shares_that_together_are_all(tmp_path):
    given = [episode(4 + seed, seed) for seed in range(5)]
    write_folder(tmp_path / "set", given, (SEEN, DONE), None)
    data = open_data(tmp_path / "set")
    fields = experience_fields(ObservationCodec(SEEN).space, ActionCodec(DONE).space)
    shares = []
    for part in range(2):
        replay = Replay(fields, capacity=100, length=3, context=1, batch=2)
        shares.append(fill(replay, data, part=part, parts=2))
        assert len(replay) == shares[-1].steps + shares[-1].episodes and replay.counters["sampled_online"] == 0
        batch = replay.sample()
        # Windows may run from one episode into the next, as in training.
        assert batch["view"].shape == (2, 4, 16, 16, 1)
        assert (batch["is_first"][:, 1:] == batch["is_last"][:, :-1]).all()
    assert sum(share.episodes for share in shares) == 5 and sum(share.steps for share in shares) == 30
    with pytest.raises(DataError, match="does not fit into the replay's 20 rows"):
        fill(Replay(fields, capacity=20, length=3, batch=2), data)


def damage(folder, **changes):
    path = folder / "episode-00000000.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for name, change in changes.items():
        key = name.replace("__", "/")
        if change is None:
            del arrays[key]
        else:
            arrays[key] = change(arrays[key])
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"reward": None}, "episode-00000000.npz lacks 'reward'; it has action/arm"),
        ({"observation__view": lambda v: v[:-1]}, r"'observation/view' has the shape \(4, 16, 16\), but must"),
        ({"action__arm": lambda v: v[:, :1]}, r"'action/arm' has the shape \(4, 1\)"),
        ({"reward": lambda v: v * np.nan}, "episode 0 of .* has a value of 'reward' that is not finite"),
        ({"action__grip": lambda v: v + 7}, "episode 0 of .* has a value of 'action/grip' that is not in its space"),
        ({"observation__inner__speed": lambda v: np.full(v.shape, "fast")}, "episode 0 of .* does not fit its spaces"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changes, says, tmp_path):
    write_folder(tmp_path / "set", [episode(4)], (SEEN, DONE), None)
    damage(tmp_path / "set", **changes)
    with pytest.raises(DataError, match=says):
        list(checked(open_data(tmp_path / "set")))


def test_a_pickle_among_the_episodes_is_not_loaded(tmp_path):
    write_folder(tmp_path / "set", [episode(4)], (SEEN, DONE), None)
    np.savez(tmp_path / "set" / "episode-00000001.npz", reward=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"episode-00000001\.npz cannot be read: Object arrays cannot be loaded"):
        list(checked(open_data(tmp_path / "set")))


def test_places_that_are_no_data_sets_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        open_data(tmp_path / "nothing")
    with pytest.raises(DataError, match="it holds no episodes"):
        open_data(tmp_path)
    write_folder(tmp_path / "set", [episode(4)], (SEEN, DONE), None)
    index = tmp_path / "set" / "data_set.json"
    about = json.loads(index.read_text())
    index.write_text(json.dumps({**about, "format": 9}))
    with pytest.raises(DataError, match="has the format 9"):
        open_data(tmp_path / "set")
    index.unlink()
    with pytest.raises(DataError, match="its spaces are unknown: 'oneiros data import"):
        open_data(tmp_path / "set")
    assert len(list(checked(open_data(tmp_path / "set", (SEEN, DONE))))) == 1
    with pytest.raises(DataError, match=r"it has the observation space obs: .* but this environment has "):
        require_same_spaces("it", (spaces.Box(-1, 1, (3,)), DONE), (SEEN, DONE))
