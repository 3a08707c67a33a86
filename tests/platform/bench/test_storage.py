"""``oneiros bench replay``: rates, and bytes a row."""

import pytest
from oneiros.envs.spaces import flatten_action_space, flatten_observation_space
from oneiros.platform.bench.kinds import KINDS
from oneiros.platform.bench.learner import LearnerSettings
from oneiros.platform.bench.storage import bytes_per_row, measure_replay, replay_fields
from oneiros.platform.config.algorithms import list_algorithms
from oneiros.platform.training.agents import build_agent, row_fields

PRESETS = {name: p for name, p in list_algorithms()["dreamerv3"].presets.items() if "size" in p.hyper}
SHORT = ("--batch-size", 2, "--batch-length", 8, "--rows", 600, "--batches", 3)


def test_rates_and_bytes(bench):
    code, result, out, _ = bench("replay", "--obs", "image", "--size", "1m", *SHORT)
    assert code == 0
    assert 0 < result["min_s"] <= result["median_s"] <= result["max_s"]
    assert result["insert_rows_per_s"] > 0
    assert result["write_back"]["median_s"] > 0
    assert (result["batch_size"], result["batch_length"], result["where"]) == (2, 8, "memory")
    assert {row["size"] for row in result["row_bytes_by_size"]} == {"1m", "12m", "25m", "50m", "100m", "200m", "400m"}
    assert "sample and stage 2 x 9" in out


def test_a_replay_on_disk(tmp_path):
    folder = tmp_path / "replay"
    result = measure_replay("state", size="1m", rows=600, batch=2, length=8, batches=2, directory=folder)
    assert result["where"] == "disk"
    assert list(folder.rglob("*.rows"))


@pytest.mark.parametrize("obs", KINDS)
def test_fields_are_the_agents(obs):
    kind = KINDS[obs]
    spaces = kind.observation_space, kind.action_space
    hyper = LearnerSettings(size="1m").hyperparameters()
    agent = build_agent("dreamerv3", hyper, *spaces, role="policy")
    assert replay_fields(kind, "1m") == row_fields(
        agent, flatten_observation_space(spaces[0]), flatten_action_space(spaces[1])
    )


@pytest.mark.parametrize("stride", [1, 8])
def test_bytes_by_formula_are_those_of_a_replay(stride):
    result = measure_replay("state", size="1m", rows=600, batch=2, length=7, batches=1, latent_stride=stride)
    row = next(r for r in bytes_per_row(KINDS["state"], (stride,)) if r["size"] == "1m")
    assert row["total"] == pytest.approx(result["row_bytes"])


def test_images_dominate_their_rows():
    """The bound of the design: 1.4 times the observation at 12m, and with a stride at 200m too."""
    table = {(row["size"], row["latent_stride"]): row["times_obs"] for row in bytes_per_row(KINDS["image"], (1, 8))}
    assert table["12m", 1] <= 1.4
    assert table["200m", 8] <= 1.4


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_within_the_bound(name):
    preset = PRESETS[name]
    stride = preset.run.get("replay", {}).get("latent_stride", 1)
    table = {row["size"]: row["times_obs"] for row in bytes_per_row(KINDS["image"], (stride,))}
    assert table[preset.hyper["size"]] <= 1.4
