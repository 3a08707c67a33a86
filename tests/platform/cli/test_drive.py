"""The loop around an engine, with an engine that only counts."""

import errno
import json
import os
import signal
import time

import pytest
from oneiros.platform.tracking import read_metrics


def train(oneiros, *words):
    quiet = ["--set", "tracking.mlflow=false", "--set", "evaluation.episodes=2", "--set", "tracking.every_seconds=1e-6"]
    quiet += ["--set", "tracking.videos=false"]
    always = ["--preset", "two_cores", "--engine", "local", "--size", "1m", "--run-dir", "run"]
    return oneiros("train", "CartPole-v1", *always, *quiet, *words)


def test_a_run_ends_at_its_steps_saves_and_evaluates(oneiros, fake_engine, tmp_path):
    code, out, err = train(oneiros, "--env-steps", "100", "--json", "out.json")
    assert code == 0
    assert fake_engine.calls == [("save", 100), ("evaluate", 100), ("close", 100)]
    assert "100 env steps in 0:00: done." in out and "return 100.0 ± 0.0, length 7.0" in out
    assert "Preset two_cores (" in err and "): asked for." in err
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["env_steps"] == 100 and figures["evaluation"]["return_mean"] == 100.0
    assert figures["checkpoint"] == "run/checkpoints/step-000000000100"
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["episodes"] == 2
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["env_steps"] for row in rows if "return" in row][:3] == [10, 20, 30]
    assert rows[-1]["evaluation/return_mean"] == 100.0


def test_saving_evaluating_and_filming_happen_by_env_steps(oneiros, fake_engine, tmp_path):
    every = ["checkpoint.every_env_steps=30", "evaluation.every_env_steps=40", "tracking.videos_every_env_steps=50"]
    words = [word for setting in every for word in ("--set", setting)]
    code, *_ = train(oneiros, "--env-steps", "100", *words, "--set", "checkpoint.keep=2")
    assert code == 0
    assert [call for call in fake_engine.calls if call[0] == "save"] == [("save", s) for s in (30, 60, 90, 100)]
    assert [call for call in fake_engine.calls if call[0] == "evaluate"] == [("evaluate", s) for s in (40, 80, 100)]
    assert [call for call in fake_engine.calls if call[0] == "videos"] == [("videos", 50), ("videos", 100)]
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())] == [
        "step-000000000090", "step-000000000100",
    ]  # fmt: skip
    assert (tmp_path / "run" / "media" / "openloop" / "image" / "000000000050.mp4").stat().st_size > 0


@pytest.mark.parametrize(("more", "expected"), [((), [60]), (("tracking.videos_every_env_steps=30",), [30, 60])])
def test_a_run_is_filmed_at_its_end_unless_it_was_just_then(oneiros, fake_engine, more, expected):
    settings = [word for setting in ("tracking.videos=true", *more) for word in ("--set", setting)]
    train(oneiros, "--env-steps", "60", *settings)
    assert [steps for call, steps in fake_engine.calls if call == "videos"] == expected


def test_a_run_ends_early_at_the_return_it_was_asked_for(oneiros, fake_engine):
    code, out, _ = train(oneiros, "--env-steps", "1000", "--set", "stop_at_return=50")
    # 20 episodes, which 100 steps of five make, come first.
    assert code == 0 and "100 env steps" in out and "return reached" in out


def test_evaluations_decide_where_there_are_any_and_are_not_the_final_one(oneiros, fake_engine):
    fake_engine.returns = lambda steps: 0.0 if fake_engine.asked is None else float(steps)
    fake_engine.asked = None
    evaluate = fake_engine.evaluate
    seeds = []

    def remember(episodes, seed):
        seeds.append(seed)
        fake_engine.asked = seed
        result = evaluate(episodes, seed)
        fake_engine.asked = None
        return result

    fake_engine.evaluate = remember
    words = ["--set", "stop_at_return=50", "--set", "evaluation.every_env_steps=30", "--set", "evaluation.seed=7"]
    code, out, _ = train(oneiros, "--env-steps", "1000", *words)
    assert code == 0 and "60 env steps" in out and "return reached" in out
    # What stopped the run was lucky more often than not: the figure that is reported comes from other episodes.
    assert seeds == [8, 8, 7]


def test_a_run_ends_early_when_its_time_is_up(oneiros, fake_engine):
    code, out, _ = train(oneiros, "--env-steps", "1000000000", "--set", "max_seconds=0.3")
    assert code == 0 and "time is up" in out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(oneiros, fake_engine, tmp_path, number, code):
    fake_engine.on_step = lambda engine: engine.env_steps == 50 and os.kill(os.getpid(), number)
    before = signal.getsignal(number)
    found, out, err = train(oneiros, "--env-steps", "1000")
    assert found == code and fake_engine.calls == [("save", 50), ("close", 50)]
    assert "Go on with: oneiros resume run" in out and "again to abort without saving" in err
    assert signal.getsignal(number) is before

    fake_engine.on_step = lambda engine: None
    fake_engine.env_steps = 0
    found, out, err = oneiros("resume", "run", "--env-steps", "120")
    assert found == 0 and "Going on from run/checkpoints/step-000000000050" in err and "120 env steps" in out
    origin = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert [entry["env_steps"] for entry in origin["resumed"]] == [50] and origin["origins"]["env"] == "ENV"
    found, _, err = oneiros("resume", "run")
    assert found == 2 and "has taken its 120 env steps" in err


def test_a_second_signal_aborts_without_saving(oneiros, fake_engine):
    def twice(engine):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    fake_engine.on_step = twice
    code, _, err = train(oneiros, "--env-steps", "1000")
    assert code == 130 and "Aborted" in err and fake_engine.calls == [("close", 10)]


def test_a_signal_does_not_wait_for_an_evaluation(oneiros, fake_engine, tmp_path):
    def hang(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    fake_engine.evaluate = hang
    code, out, _ = train(oneiros, "--env-steps", "1000", "--set", "evaluation.every_env_steps=20")
    assert code == 143 and "Go on with: oneiros resume run" in out
    assert fake_engine.hurried and fake_engine.calls == [("save", 20), ("close", 20)]
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["faults/failed_evaluations"] == 0


def test_a_signal_in_the_last_evaluation_ends_it_and_resuming_makes_up_for_it(oneiros, fake_engine, tmp_path):
    evaluate = fake_engine.evaluate

    def hang(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    fake_engine.evaluate = hang
    code, out, _ = train(oneiros, "--env-steps", "100")
    assert code == 143 and "100 env steps" in out and "interrupted" in out and "Go on with: oneiros resume run" in out
    assert fake_engine.calls == [("save", 100), ("close", 100)]

    fake_engine.evaluate, fake_engine.calls, fake_engine.env_steps = evaluate, [], 0
    code, out, _ = oneiros("resume", "run")
    assert code == 0 and "100 env steps" in out and "return 100.0" in out
    assert fake_engine.calls == [("evaluate", 100), ("close", 100)]
    code, _, err = oneiros("resume", "run")
    assert code == 2 and "has taken its 100 env steps" in err


def test_a_last_evaluation_that_fails_costs_itself_and_not_the_run(oneiros, fake_engine, tmp_path):
    def fail(*_):
        raise RuntimeError("no display")

    fake_engine.evaluate = fail
    code, out, err = train(oneiros, "--env-steps", "100", "--json", "out.json")
    assert code == 0 and "100 env steps" in out and "make it with: oneiros evaluate run" in err
    assert json.loads((tmp_path / "out.json").read_text())["evaluation"] is None


def test_a_training_that_diverges_is_saved_before_it_ends(oneiros, fake_engine):
    from oneiros.platform.training.core import TrainingDiverged

    def diverge(engine):
        if engine.env_steps == 30:
            raise TrainingDiverged("50 updates in a row had gradients that are not finite; training stops")

    fake_engine.on_step = diverge
    code, _, err = train(oneiros, "--env-steps", "100")
    assert code == 1 and "50 updates in a row" in err and "Go on from" in err
    assert fake_engine.calls == [("save", 30), ("close", 30)]


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(oneiros, fake_engine, tmp_path, caplog):
    fake_engine.save_error = OSError(errno.ENOSPC, "No space left on device")

    def space_again(engine):
        if engine.env_steps == 60:
            engine.save_error = None

    fake_engine.on_step = space_again
    code, *_ = train(oneiros, "--env-steps", "100", "--set", "checkpoint.every_env_steps=20")
    assert code == 0 and ("save", 100) in fake_engine.calls and ("save", 60) in fake_engine.calls
    assert sum("failed saves ([Errno 28]" in record.message for record in caplog.records) == 1
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-2]["faults/failed_saves"] == 2


def test_an_evaluation_or_a_video_that_fails_costs_itself_and_not_the_run(oneiros, fake_engine, tmp_path, caplog):
    def fail(*_):
        raise RuntimeError("the simulator hung")

    def mend(engine):
        if engine.env_steps == 80:
            del engine.evaluate

    fake_engine.videos = fake_engine.evaluate = fail
    fake_engine.on_step = mend
    every = ["--set", "evaluation.every_env_steps=20", "--set", "tracking.videos_every_env_steps=50"]
    code, *_ = train(oneiros, "--env-steps", "100", *every)
    assert code == 0 and ("evaluate", 100) in fake_engine.calls and ("save", 100) in fake_engine.calls
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "faults/failed_evaluations" in row]
    assert rows[-1]["faults/failed_evaluations"] == 3 and rows[-1]["faults/failed_videos"] == 2
    assert sum("failed evaluations (the simulator hung)" in record.message for record in caplog.records) == 1


def test_an_engine_that_fails_is_closed_and_its_run_marked(oneiros, fake_engine, monkeypatch, capsys):
    from oneiros.platform.tracking import Tracker

    statuses = []
    monkeypatch.setattr(Tracker, "close", lambda self, status, timeout=30.0: statuses.append(status))

    def fail(engine):
        if engine.env_steps == 30:
            raise RuntimeError("the learner died")

    fake_engine.on_step = fail
    with pytest.raises(RuntimeError, match="the learner died"):
        train(oneiros, "--env-steps", "100", "--set", "checkpoint.every_env_steps=20")
    assert "Go on from run/checkpoints/step-000000000030 with: oneiros resume run" in capsys.readouterr().err
    assert statuses == ["FAILED"] and fake_engine.calls == [("save", 20), ("save", 30), ("close", 30)]


def test_a_save_that_fails_beside_the_engine_is_told_and_hides_nothing(oneiros, fake_engine, capsys, caplog):
    def fail(engine):
        if engine.env_steps == 30:
            engine.save_error = RuntimeError("no learner is left to ask")
            raise RuntimeError("the learner died")

    fake_engine.on_step = fail
    with pytest.raises(RuntimeError, match="the learner died"):
        train(oneiros, "--env-steps", "100", "--set", "checkpoint.every_env_steps=20")
    assert "Go on from run/checkpoints/step-000000000020 with: oneiros resume run" in capsys.readouterr().err
    assert any("failed saves (no learner is left to ask)" in record.message for record in caplog.records)


def test_an_engine_that_fails_before_it_did_anything_is_not_saved(oneiros, fake_engine):
    def fail():
        raise RuntimeError("the first step raises")

    fake_engine.step = fail
    with pytest.raises(RuntimeError, match="the first step raises"):
        train(oneiros, "--env-steps", "100")
    assert fake_engine.calls == [("close", 0)]


def test_a_run_is_not_trained_over_another(oneiros, fake_engine):
    assert train(oneiros, "--env-steps", "100")[0] == 0
    code, _, err = train(oneiros, "--env-steps", "100")
    assert code == 2 and "run already holds a run: continue it with 'oneiros resume run'" in err


@pytest.mark.parametrize(("reached", "code", "word"), [(450.0, 0, "The agent learnt"), (399.0, 1, "did not learn")])
def test_the_demo_fails_when_the_agent_did_not_learn(oneiros, fake_engine, monkeypatch, reached, code, word):
    from oneiros.platform.config.algorithms import Algorithm
    from oneiros.platform.config.presets import Preset

    preset = Preset(description="The demo.", run={"env_steps": 50, "tracking": {"mlflow": False}}, hyper={"size": "1m"})
    monkeypatch.setattr(Algorithm, "presets", {"demo": preset})
    fake_engine.returns = lambda steps: reached
    found, out, _ = oneiros("demo", "--run-dir", "run", "--json", "out.json")
    assert found == code and word in out and "run/checkpoints/step-000000000050" in out
