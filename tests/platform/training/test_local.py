import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oneiros.envs.vector.sync import SyncVector
from oneiros.platform.checkpoint import CheckpointError, open_checkpoint
from oneiros.platform.config import ConfigError, RunConfig
from oneiros.platform.replay import Replay
from oneiros.platform.replay.staging import Stager
from oneiros.platform.rollout import Rollout
from oneiros.platform.training.core import LearnerCore, TrainingDiverged
from oneiros.platform.training.engine import open_engine
from oneiros.platform.training.policy_file import load_policy
from safetensors.torch import load_file
from same_tensors import assert_same_tensors

SPEEDS = ("_per_s",)
FAKES = Path(__file__).parent.parent / "fakes"


def config(run_dir=None, **changes):
    values = {
        "env": "CartPole-v1",
        "agent": "linear_agent:LinearAgent",
        "engine": "local",
        "num_envs_per_runner": 2,
        "train_ratio": 8,
        "learning_starts": 100,
        "random_steps": 40,
        "seed": 3,
        "run_dir": run_dir,
        "replay": {"capacity": 2_000, "on_disk": run_dir is not None},
    }
    return RunConfig(**{**values, **changes})


def comparable(metrics):
    return {name: value for name, value in metrics.items() if not name.endswith(SPEEDS)}


def weights(engine):
    return engine.agent.state_dict()


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_two_runs_with_one_seed_are_the_same_and_with_another_are_not(env):
    engines = [open_engine(config(env=env, seed=seed)) for seed in (3, 3, 4)]
    histories = [[comparable(engine.step()) for _ in range(16)] for engine in engines]
    assert histories[0] == histories[1] != histories[2]
    assert histories[0][-1]["updates"] > 50
    assert_same_tensors(weights(engines[0]), weights(engines[1]))
    assert any(not torch.equal(weights(engines[0])[k], weights(engines[2])[k]) for k in weights(engines[0]))
    for engine in engines:
        engine.close()


def test_the_train_ratio_is_held():
    engine = open_engine(config(train_ratio=24))
    while engine.env_steps < 600:
        metrics = engine.step()
    engine.close()
    assert metrics["train_ratio"] == pytest.approx(24, rel=0.01)


RESUME = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from oneiros.platform.config import RunConfig
from oneiros.platform.training.engine import open_engine
engine = open_engine(RunConfig(**json.loads(sys.argv[2])))
engine.restore(Path(sys.argv[3]))
metrics = [engine.step() for _ in range(4)]
engine.save(Path(sys.argv[4]))
print(json.dumps(metrics))
"""


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_run_resumed_in_a_new_process_goes_on_as_if_it_had_never_stopped(tmp_path, on_disk):
    whole = open_engine(config(tmp_path / "whole" if on_disk else None))
    expected = [comparable(whole.step()) for _ in range(8)][4:]
    whole.save(tmp_path / "expected")

    half = open_engine(config(tmp_path / "half" if on_disk else None))
    for _ in range(4):
        half.step()
    half.save(tmp_path / "half-way")
    half.step()  # What happens after the save must not show in it, though both share files.
    settings = json.dumps(config(tmp_path / "half" if on_disk else None).to_dict())
    argv = [sys.executable, "-c", RESUME, str(FAKES), settings, str(tmp_path / "half-way"), str(tmp_path / "resumed")]
    half.close()
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    resumed = [comparable(metrics) for metrics in json.loads(answer.stdout)]

    # Counters of the replay that say how it came to be, not what it holds, are not part of the run.
    assert resumed == expected
    for name in ("learner-0/agent.safetensors", "policy.safetensors", "rollout.safetensors"):
        assert_same_tensors(load_file(tmp_path / "resumed" / name), load_file(tmp_path / "expected" / name))
    whole.close()


def test_who_is_in_a_hurry_waits_for_one_update_and_nothing_is_lost(tmp_path, monkeypatch):
    whole, hurried, resumed = (open_engine(config(train_ratio=128)) for _ in range(3))
    while whole.env_steps < 300:
        whole.step()
    while hurried.env_steps < 200:
        hurried.step()
    before, update = hurried.core.updates, hurried.agent.update

    def update_and_hurry(rows):
        hurried.hurry()
        return update(rows)

    monkeypatch.setattr(hurried.agent, "update", update_and_hurry)
    hurried.step()
    assert hurried.core.updates == before + 1 and hurried.loop.ratio.due(hurried.env_steps) > 1
    hurried.save(tmp_path / "hurried")
    resumed.restore(tmp_path / "hurried")
    while resumed.env_steps < whole.env_steps:
        resumed.step()
    assert (resumed.env_steps, resumed.core.updates) == (whole.env_steps, whole.core.updates)
    assert_same_tensors(weights(resumed), weights(whole))
    for engine in (whole, hurried, resumed):
        engine.close()


def test_an_evaluation_leaves_training_as_it_was():
    plain, evaluated = open_engine(config()), open_engine(config())
    for _ in range(5):
        plain.step(), evaluated.step()
    result = evaluated.evaluate(5, seed=9)
    assert result.episodes == 5 and len(result.returns) == 5 and result.env_steps == plain.env_steps
    assert result == plain.evaluate(5, seed=9)
    assert {"episodes", "return_mean", "return_std", "length_mean", "env_steps"} <= result.summary().keys()
    json.dumps(result.summary())
    evaluated.evaluate(3, seed=10)
    assert comparable(plain.step()) == comparable(evaluated.step())
    assert_same_tensors(weights(plain), weights(evaluated))


def test_a_checkpoint_is_refused_in_one_sentence_where_it_does_not_fit(tmp_path):
    engine = open_engine(config())
    engine.step()
    engine.save(tmp_path / "checkpoint")
    cases = [
        ({"env": "Pendulum-v1"}, r"observation space Box\(4\).*environment has Box\(3\)"),
        ({"hyper": {"hidden": 8}}, "another model"),
    ]
    for changes, sentence in cases:
        other = open_engine(config(**changes))
        with pytest.raises(CheckpointError, match=sentence):
            other.restore(tmp_path / "checkpoint")
        other.close()


def test_the_policy_alone_can_be_loaded(tmp_path):
    engine = open_engine(config())
    for _ in range(5):
        engine.step()
    engine.save(tmp_path / "checkpoint")
    policy, manifest = load_policy(tmp_path / "checkpoint")
    assert manifest.env_steps == engine.env_steps
    assert policy.role == "policy"
    assert_same_tensors(policy.policy_state(), engine.agent.policy_state())
    assert open_checkpoint(tmp_path / "checkpoint").counters["updates"] == engine.core.updates


def test_gradients_that_stay_not_finite_end_the_training_in_a_state_that_can_be_saved(tmp_path, caplog):
    engine = open_engine(config(hyper={"poison_update": 10}))
    with pytest.raises(TrainingDiverged, match="50 updates in a row"):
        for _ in range(20):
            metrics = engine.step()
    assert caplog.text.count("not finite") == 1
    assert 0 < metrics["faults/nonfinite_updates"] < 50
    engine.save(tmp_path / "checkpoint")
    assert all(
        torch.isfinite(t.float()).all() for t in load_file(tmp_path / "checkpoint/learner-0/agent.safetensors").values()
    )


def test_another_number_of_environments_goes_on_with_fresh_episodes(tmp_path):
    engine = open_engine(config())
    for _ in range(3):
        engine.step()
    engine.save(tmp_path / "checkpoint")
    wider = open_engine(config(num_envs_per_runner=3))
    wider.step()
    wider.restore(tmp_path / "checkpoint")
    # Its environments are in the middle of episodes that the restored replay knows nothing of.
    assert all(stream.last is None for stream in wider.core.replay.streams.values())
    assert wider.env_steps == engine.env_steps
    assert wider.step()["updates"] > engine.core.updates


@pytest.mark.parametrize("random_steps", [40, 1000])
def test_another_number_of_environments_takes_no_random_steps_again(tmp_path, random_steps):
    engine = open_engine(config(random_steps=random_steps))
    while engine.env_steps < 50:
        engine.step()
    engine.save(tmp_path / "checkpoint")
    wider = open_engine(config(num_envs_per_runner=3, random_steps=random_steps))
    wider.restore(tmp_path / "checkpoint")
    assert wider.collector.rollout.random_left == max(0, random_steps - engine.env_steps)
    for each in (engine, wider):
        each.close()


def test_everything_is_closed_where_an_engine_cannot_be_built_or_its_core_cannot_be_closed(monkeypatch):
    closed, close = [], LearnerCore.close
    monkeypatch.setattr(SyncVector, "close_extras", lambda self: closed.append("environments"))
    monkeypatch.setattr(LearnerCore, "close", lambda self: (closed.append("core"), close(self)))

    def fail(*_, **__):
        raise RuntimeError("broken")

    engine = open_engine(config())
    with monkeypatch.context() as broken, pytest.raises(RuntimeError, match="broken"):
        broken.setattr(Rollout, "__init__", fail)
        open_engine(config())
    assert closed == ["core", "environments"]
    with monkeypatch.context() as broken, pytest.raises(RuntimeError, match="broken"):
        broken.setattr(Stager, "close", fail)
        broken.setattr(Replay, "close", lambda self: closed.append("replay"))
        engine.close()
    assert closed[2:] == ["core", "replay", "environments"]


def test_images_are_filmed():
    engine = open_engine(config(env="pixel/catch", num_envs_per_runner=1, learning_starts=20))
    assert engine.videos() == {}
    for _ in range(4):
        engine.step()
    videos = engine.videos()
    assert videos and all(name.startswith("openloop/") and video.ndim == 4 for name, video in videos.items())


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"agent": "nosuch"}, "nosuch"),
        ({"agent": "nosuch:Agent"}, "cannot be imported"),
        ({"hyper": {"batch": 3}}, "batch"),
        ({"device": "cuda"}, "no CUDA"),
    ],
)
def test_mistakes_are_named(changes, sentence):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=sentence):
        open_engine(config(**changes))


def test_what_the_model_predicts_badly_is_replayed_more_often():
    tiny = {"size": "1m", "deter": 32, "hidden": 16, "groups": 4, "classes": 4, "units": 16, "batch_size": 4}
    engine = open_engine(
        config(
            agent="dreamerv3",
            hyper={**tiny, "batch_length": 8, "imagination_length": 3},
            replay={"capacity": 2_000, "on_disk": False, "online": False, "mixture": {"priority": 1.0}},
        )
    )
    while engine.core.updates < 20:
        engine.step()
    (priorities,) = engine.core.replay.selector.selectors
    known = torch.cat([torch.from_numpy(weights) for weights in priorities._weights.values()])
    assert known[known > 0].unique().numel() > 40
    assert engine.core.replay.stats()["signals_ignored"] == 0
    engine.close()


def test_experience_that_the_disk_holds_already_is_not_taken_twice_from_other_learners(tmp_path):
    engine = open_engine(config(tmp_path))
    while len(engine.core.replay) < 100:
        engine.step()
    engine.save(tmp_path / "checkpoint")
    rows = len(engine.core.replay)
    engine.step()
    engine.close()
    again = open_engine(config(tmp_path))
    assert len(again.core.replay) > rows
    again.core.load_shared([tmp_path / "checkpoint/learner-0"], 0, 1)
    assert len(again.core.replay) == rows
    again.close()
