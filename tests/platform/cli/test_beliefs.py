"""What ``oneiros evaluate`` reports of several agents: their beliefs, in numbers, pictures and MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from oneiros.envs import registry
from oneiros.platform.export import load

TINY = """
hyper:
  {size: 1m, deter: 16, hidden: 8, groups: 4, classes: 4, units: 8, context: 8, batch_size: 2, batch_length: 8,
   imagination_length: 3, bins: 31, channel: {tokens: 1, vocabulary: 4}, weights: separate}
learning_starts: 64
train_ratio: 0.5
num_envs_per_runner: 2
tracking: {every_seconds: 0.01, system_metrics: false, model: null, checkpoint: null}
evaluation: {episodes: 2}
"""


@pytest.mark.timeout(180)
def test_beliefs_of_separate_minds_are_measured_drawn_and_brought_to_the_run_in_mlflow(
    oneiros: Any, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    (tmp_path / "tiny.yaml").write_text(TINY)
    words = ["--agent", "belief", "--engine", "local", "--env-steps", "200", "--run-dir", "runs/boxes"]
    code, _, problems = oneiros("train", "minds/boxes", "tiny.yaml", *words)
    assert code == 0, problems
    known = json.loads((tmp_path / "runs" / "boxes" / "mlflow.json").read_text())

    code, _, said = oneiros(
        "evaluate", "runs/boxes", "--episodes", 4, "--bits", "0,6", "--json", "found.json", "--messages", "said.jsonl"
    )
    assert code == 0 and "At most 6 bits" in said
    found = json.loads((tmp_path / "found.json").read_text())
    extras = found["extras"]
    for name in ("anne", "sally"):
        assert extras[f"belief/{name}/marble/oracle_nll"] < extras[f"belief/{name}/marble/nll"]
    assert extras["belief/anne/marble/oracle_nll"] == pytest.approx(0, abs=1e-6)
    assert 0.1 < extras["belief/sally/marble/oracle_nll"] < extras["belief/sally/marble/chance_nll"]
    assert extras["intent/anne_about_sally/policy/floor"] <= extras["intent/anne_about_sally/policy/nll"]
    messages = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert {m["episode"] for m in messages} == {0, 1, 2, 3} and {m["from"] for m in messages} == {"anne", "sally"}
    sent = sum(m["bits"] for m in messages) / 4
    assert sent == pytest.approx(sum(extras[f"bits/{name}/an_episode"] for name in ("anne", "sally")))
    pictures = [Path(picture).name for picture in found["pictures"]]
    assert pictures == ["calibration.png", "zero_order.png", "first_order.png", "intent.png", "return_by_bits.png"]
    assert found["mlflow"]["evaluation/bits_at_most/0/bits"] == 0
    assert 0 < found["mlflow"]["evaluation/bits_at_most/6/bits"] <= 12

    client = MlflowClient(known["uri"])
    run = client.get_run(known["run_id"])
    assert run.info.status == "FINISHED", "as training left it"
    for name, value in found["mlflow"].items():
        point = client.get_metric_history(known["run_id"], name)[-1]
        assert point.value == pytest.approx(value) and point.step == found["env_steps"]
    folder = f"beliefs/{found['env_steps']:012d}"
    stored = client.list_artifacts(known["run_id"], folder)
    assert sorted(Path(file.path).name for file in stored) == sorted(pictures)
    assert json.loads((tmp_path / "runs" / "boxes" / "mlflow.json").read_text()) == known

    code, _, said = oneiros("export", "runs/boxes", "--to", "policy")
    assert code == 0, said
    policy, env = load(tmp_path / "policy"), registry.make("minds/boxes")
    action, state = policy.step(env.reset(seed=0)[0])
    action, _ = policy.step(env.step(action)[0], state)
    assert env.action_space.contains(action)

    further = ["--from", "runs/boxes", *words[:4], "--env-steps", "100", "--run-dir", "runs/further"]
    code, _, said = oneiros("train", "minds/boxes", "tiny.yaml", *further, "--set", "tracking.mlflow=false")
    assert code == 0, said

    code, _, said = oneiros("evaluate", "runs/boxes", "--bits", "a few")
    assert code == 2 and "--bits 'a few' must be auto, or numbers from 0 on such as 0,6,24" in said


def test_the_messages_of_those_who_send_none_cannot_be_written(oneiros: Any, tmp_path: Path) -> None:
    (tmp_path / "silent.yaml").write_text(TINY.replace("tokens: 1", "tokens: 0"))
    words = ["--agent", "belief", "--engine", "local", "--env-steps", "20", "--set", "tracking.mlflow=false"]
    assert oneiros("train", "minds/boxes", "silent.yaml", *words, "--run-dir", "runs/silent")[0] == 0
    code, _, said = oneiros("evaluate", "runs/silent", "--messages", "said.jsonl")
    assert code == 2 and "--messages needs agents that send each other some, and runs/silent has none that do" in said
    assert not (tmp_path / "said.jsonl").exists()


def test_a_channel_between_others_is_refused_before_anything_is_written(oneiros: Any, tmp_path: Path) -> None:
    where = ["--agent", "belief", "--engine", "local", "--run-dir", "runs/none"]
    code, _, said = oneiros("train", "minds/boxes", *where, "--set", "hyper.channel={tokens: 1, listeners: {bob: []}}")
    assert code == 2 and "channel.listeners names the agent 'bob'; there are anne, sally" in said
    assert not (tmp_path / "runs").exists()
