"""Trainings that begin with recorded episodes, or with what another run has learnt."""

import contextlib
import json
import shutil

import numpy as np
import pytest
import torch
from oneiros.platform.checkpoint import read_manifest
from oneiros.platform.cli import main
from oneiros.platform.data import open_data
from oneiros.platform.tracking import RunDirectory, read_metrics
from oneiros.platform.training.engine import open_engine
from oneiros.platform.training.fine_tuning import adopt, read_learnt
from oneiros.platform.training.local import LocalEngine
from safetensors.torch import load_file

SMALL = [
    *("--preset", "two_cores", "--size", "1m", "--set", "deter=32", "--set", "hidden=16", "--set", "groups=4"),
    *("--set", "units=16", "--set", "batch_size=2", "--set", "batch_length=8", "--set", "imagination_length=3"),
    *("--set", "learning_starts=40", "--set", "train_ratio=1", "--set", "num_envs_per_runner=2"),
    *("--set", "evaluation.episodes=2", "--set", "tracking.mlflow=false", "--set", "warmup=0"),
]  # fmt: skip
LOCAL = ["--engine", "local"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of CartPole, and the episodes in its replay as a data set."""
    place = tmp_path_factory.mktemp("made")
    with contextlib.chdir(place):
        words = ["train", "CartPole-v1", *LOCAL, *SMALL, "--env-steps", "200", "--run-dir", "first"]
        assert main.run(words) == 0
        assert main.run(["data", "export", "first", "--to", "episodes", "--json", "out.json"]) == 0
    return place


@pytest.fixture
def run(made, tmp_path):
    """Copies of them in the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def learnt(path):
    run = RunDirectory(path)
    return load_file(run.find_checkpoint() / "learner-0" / "agent.safetensors")


def test_data_train_an_agent_without_an_environment(oneiros, run, tmp_path, monkeypatch):
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["steps"] == sum(episode.steps for episode in open_data("episodes").episodes())
    stepped = []
    words = ["--env-steps", "300", "--set", "evaluation.at_end=false", "--run-dir", "second"]
    with monkeypatch.context() as patch:
        patch.setattr("oneiros.platform.rollout.loop.Rollout.collect", lambda *_: stepped.append(1))
        code, _, err = oneiros("train", "--offline", "episodes", *SMALL, *words)
    assert code == 0 and stepped == [], err
    rows = read_metrics(tmp_path / "second" / "metrics.jsonl")
    assert rows[-1]["updates"] == pytest.approx(300 / 16, abs=9) and rows[-1]["loss/dyn"] > 0
    config = RunDirectory(tmp_path / "second").config()
    assert config.env == "CartPole-v1" and config.data.offline == str(tmp_path / "episodes")
    # What it learnt acts, and the run goes on where it was.
    assert oneiros("evaluate", "second", "--episodes", "2")[0] == 0
    before = rows[-1]["updates"]
    code, _, err = oneiros("resume", "second", "--env-steps", "500")
    assert code == 0 and read_metrics(tmp_path / "second" / "metrics.jsonl")[-1]["updates"] > before, err


def test_a_replay_begins_with_data(oneiros, run, tmp_path):
    words = ["--env-steps", "64", "--set", "learning_starts=0", "--run-dir", "second"]
    code, _, err = oneiros("train", "CartPole-v1", *LOCAL, "--prefill", "episodes", *SMALL, *words)
    assert code == 0 and "The replay begins with" in err
    recorded = list(open_data("episodes").episodes())
    rows = [row for row in read_metrics(tmp_path / "second" / "metrics.jsonl") if "replay/rows" in row]
    filled = sum(episode.steps + 1 for episode in recorded)
    assert rows[-1]["replay/rows"] >= filled + 64
    # With that much in the replay, learning begins with the first step.
    assert rows[-1]["updates"] >= 64 / 16 - 1


def test_fine_tuning_begins_with_what_was_learnt_but_for_the_parts_that_are_reset(oneiros, run, tmp_path):
    words = ["--env-steps", "20", "--set", "learning_starts=1000", "--run-dir", "second"]
    tuned = ["--from", "first", "--reset", "actor,critic", "--set", "env_options.time_limit=50"]
    code, _, err = oneiros("train", "CartPole-v1", *LOCAL, *SMALL, *tuned, *words)
    assert code == 0 and "has learnt, but for actor, critic" in err
    before, after = learnt(tmp_path / "first"), learnt(tmp_path / "second")
    # Nothing was learnt since, so what was taken over is as it was.
    for key in after:
        if key.startswith("model/"):
            assert torch.equal(after[key], before[key]), key
    actor = [key for key in after if key.startswith("actor/") and after[key].std() > 0]
    assert actor and all(not torch.equal(after[key], before[key]) for key in actor)
    assert not any(after[key].any() for key in after if key.startswith("critic/mlp.out") or key == "critic/out.weight")
    assert after["updates"] == 0


def test_hyperparameters_come_from_the_run_that_is_gone_on_from(oneiros, run, tmp_path):
    words = ["--preset", "two_cores", "--set", "tracking.mlflow=false", "--set", "evaluation.at_end=false"]
    words += [
        "--env-steps",
        "20",
        "--set",
        "learning_starts=1000",
        "--run-dir",
        "second",
        "--set",
        "learning_rate=1e-5",
    ]
    assert oneiros("train", "CartPole-v1", *LOCAL, "--from", "first", *words)[0] == 0
    hyper = RunDirectory(tmp_path / "second").config().hyper
    assert hyper["deter"] == 32 and hyper["batch_length"] == 8 and hyper["learning_rate"] == 1e-5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["Pendulum-v1", "--from", "first"], "has the observation space obs: Box(4) of float32, but this environment"),
        (["CartPole-v1", "--from", "first", "--reset", "acter"], "part 'acter' (in --reset) is unknown: did you mean"),
        (["CartPole-v1", "--from", "first", "--set", "deter=64"], "of another model"),
        (["CartPole-v1", "--from", "nowhere"], "nowhere is not a checkpoint: there is no such directory"),
        (["CartPole-v1", "--reset", "actor"], "--reset goes with --from"),
        (["Pendulum-v1", "--prefill", "episodes"], "the data set"),
        (["Pendulum-v1", "--offline", "episodes"], "has the observation space obs: Box(4) of float32"),
        (["--offline", "nowhere"], "nowhere is no data set: there is no such folder"),
        (["--offline", "episodes", "--engine", "rllib"], "engine must be local to learn from data alone"),
        ([], "ENV must be given"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(oneiros, run, words, says):
    engine = [] if "--offline" in words or not words else LOCAL
    code, _, err = oneiros(
        "train", *words, *engine, *SMALL[:4], "--set", "tracking.mlflow=false", "--run-dir", "second"
    )
    assert code == 2 and says in err and len(err.strip().splitlines()[-1]) < 400, err


def test_any_agent_is_fine_tuned_by_the_first_words_of_its_state(tmp_path):
    from tiny_run import tiny

    config = tiny("CartPole-v1", agent="linear_agent:LinearAgent", hyper={})
    engine = open_engine(config)
    assert isinstance(engine, LocalEngine)
    while not engine.core.updates:
        engine.step()
    engine.save(tmp_path / "checkpoint")
    fresh = open_engine(config.model_copy(update={"seed": 9}))
    taken = adopt(fresh.agent, read_learnt(tmp_path / "checkpoint"))
    assert taken and all(key.startswith("net/") for key in taken)
    own, theirs = fresh.agent.state_dict(), engine.agent.state_dict()
    assert all(torch.equal(own[key], theirs[key]) for key in taken)
    assert int(own["updates"]) == 0 and read_manifest(tmp_path / "checkpoint").counters["updates"] > 0
    assert not any(key.startswith("optimiser/") for key in own)
    assert np.array_equal(own["generator"].numpy(), open_generator(9))
    engine.close(), fresh.close()


def open_generator(seed):
    return torch.Generator().manual_seed(seed).get_state().numpy()


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_runners_and_learners_on_ray_begin_so_too(oneiros, run, tmp_path):
    words = ["--engine", "rllib", "--num-runners", "1", "--env-steps", "20", "--set", "learning_starts=100000"]
    words += ["--set", "evaluation.at_end=false", "--run-dir", "second"]
    code, _, err = oneiros("train", "CartPole-v1", "--from", "first", "--prefill", "episodes", *SMALL, *words)
    assert code == 0, err
    before, after = learnt(tmp_path / "first"), learnt(tmp_path / "second")
    assert all(torch.equal(after[key], before[key]) for key in after if key.startswith(("model/", "actor/")))
    rows = [row for row in read_metrics(tmp_path / "second" / "metrics.jsonl") if "replay/rows" in row]
    assert rows[-1]["replay/rows"] > sum(episode.steps + 1 for episode in open_data("episodes").episodes())
