"""``oneiros bench update``: what is timed is what training does, and what is written says what it was."""

import itertools
import json
import subprocess
import sys

import pytest
import torch
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.platform.bench import learner as learner_module
from oneiros.platform.bench import operations
from oneiros.platform.bench.kinds import KINDS
from oneiros.platform.bench.learner import Learner, LearnerSettings
from oneiros.platform.bench.operations import count_flops, launches_among
from oneiros.platform.training.agents import build_agent

BATCH = ("--batch-size", 2, "--batch-length", 6, "--horizon", 3)


@pytest.fixture
def settings(widths):
    return LearnerSettings(
        precision="float32", compile="off", batch_size=2, batch_length=6, imagination_length=3, overrides=widths
    )


def test_a_measurement_says_what_it_measured(bench, tiny, widths):
    code, result, out, _ = bench("update", "--updates", 3, *BATCH, *tiny, "--precision", "float32", "--threads", 1)
    assert code == 0
    assert 0 < result["min_s"] <= result["median_s"] <= result["max_s"]
    assert result["updates"] == 3
    assert result["startup_s"] > result["min_s"]
    assert (result["batch_size"], result["batch_length"], result["imagination_length"]) == (2, 6, 3)
    assert (result["precision"], result["compile"], result["threads"]) == ("float32", False, 1)
    assert result["overrides"] == widths
    assert result["torch"] == torch.__version__
    assert result["peak_memory_bytes"] > 50e6
    assert result["flops_per_s"] == pytest.approx(result["flops"] / result["median_s"])
    assert result["share_of_ceiling"] == pytest.approx(result["flops_per_s"] / result["ceiling_flops_per_s"])
    assert f"{result['parameters']:,} parameters" in out


def test_parameters_are_those_that_are_trained(bench, tiny, widths):
    _, result, _, _ = bench("update", "--updates", 1, *BATCH, *tiny, "--no-operations")
    kind = KINDS["state"]
    agent = build_agent("dreamerv3", DreamerV3.Config(size="1m", **widths), kind.observation_space, kind.action_space)
    modules = (agent.model, agent.actor, agent.critic)
    assert result["parameters"] == sum(p.numel() for module in modules for p in module.parameters())


def test_images_are_measured_too(bench, tiny):
    code, result, _, _ = bench("update", "--obs", "image", "--updates", 1, *BATCH, *tiny, "--no-operations")
    assert (code, result["obs"]) == (0, "image")


def test_an_update_is_complete(settings):
    learner = Learner(settings)
    before = learner.core.replay.stats()
    learner.update()
    after = learner.core.replay.stats()
    assert after["sampled"] - before["sampled"] == 2
    assert after["written_back"] - before["written_back"] == 2 * 6
    assert learner.core.updates == int(learner.agent.updates) == 1
    learner.close()


def test_start_up_lasts_until_nothing_is_compiled_any_more(settings, monkeypatch):
    learner = Learner(settings)
    graphs = iter([0, 5, 5, 6, 6, 6, 6, 6])
    monkeypatch.setattr(learner_module, "_compiled_graphs", lambda: next(graphs))
    assert learner.settle() == 3
    assert learner.core.updates == 3
    learner.close()


def test_without_compiling_the_first_update_is_steady(settings):
    learner = Learner(settings)
    assert learner.settle() == 1
    learner.close()


def test_arithmetic_is_proportional_to_the_batch(settings):
    single = count_flops(settings)["total"]
    double = count_flops(LearnerSettings(**{**settings.__dict__, "batch_size": 4}))["total"]
    assert double == 2 * single


def test_arithmetic_counts_what_is_known(settings):
    """The heads' first layer alone is a lower bound: forward and both gradients of every replayed row."""
    rows, feat = 2 * 6, 32 + 16
    assert count_flops(settings)["total"] > 3 * 2 * rows * feat * 16


def test_the_ceiling_is_that_of_the_fastest_product(monkeypatch):
    """By a clock that ticks a hundredth of a second each time it is read, the largest product is the fastest."""
    ticks = itertools.count()
    monkeypatch.setattr(operations.time, "perf_counter", lambda: next(ticks) / 100)
    monkeypatch.setattr(operations, "CEILING_SIZES", {"cpu": (32, 64)})
    ceiling = operations.matmul_ceiling(torch.device("cpu"), torch.float32)
    assert ceiling == pytest.approx(4 * 2 * 64**3 / 0.01)


def test_launches_are_told_apart():
    host, device = "DeviceType.CPU", "DeviceType.CUDA"
    events = [
        ("cudaLaunchKernel", host),
        ("cuLaunchKernelEx", host),
        ("cudaGraphLaunch", host),
        ("cudaMemcpyAsync", host),
        ("aten::mm", host),
        ("gemm_kernel", device),
        ("elementwise", device),
        ("Memcpy HtoD (Pinned -> Device)", device),
    ]
    assert launches_among(events) == {"launches": 2, "graph_launches": 1, "copies": 1, "kernels": 2}


def test_a_profile_is_a_trace(bench, tiny, tmp_path):
    trace = tmp_path / "trace.json"
    code, result, out, _ = bench(
        "update", "--updates", 1, *BATCH, *tiny, "--no-operations", "--precision", "float32", "--profile", trace
    )
    assert code == 0
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"aten::addmm", "aten::bmm"} <= names
    assert result["operations"][0]["ms"] >= result["operations"][1]["ms"] > 0
    assert result["operations"][0]["operation"] in out


def test_it_runs_without_ray_and_mlflow(tiny, tmp_path):
    words = ["bench", "update", "--updates", "1", *map(str, BATCH), *tiny, "--json", str(tmp_path / "r.json")]
    code = f"""
import sys
sys.modules["ray"] = sys.modules["mlflow"] = None
from oneiros.platform.cli import main
sys.exit(main.run({words!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["startup_s"] > 0.5, "what starting Python and importing PyTorch takes belongs to it"
