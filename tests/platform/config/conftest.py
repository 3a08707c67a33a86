"""A third party's algorithm, installed as a distribution of its own on the path."""

import sys
import textwrap

import pytest

MODULE = """
from importlib import resources
from pathlib import Path
from typing import Literal
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Heads(BaseModel):
    model_config = ConfigDict(extra="forbid")
    layers: int = Field(3, ge=1)


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: Literal["1m", "12m"] = "12m"
    learning_rate: float = Field(4e-5, gt=0)
    horizon: int = Field(15, ge=1)
    batch_length: int = Field(64, ge=2)
    heads: Heads = Heads()

    @model_validator(mode="after")
    def fits(self):
        if self.horizon > self.batch_length:
            raise ValueError(f"horizon ({self.horizon}) must be at most batch_length ({self.batch_length})")
        return self


class Toy:
    Config = Config
    PRESETS = Path(__file__).with_name("toy_presets.yaml")
"""

PRESETS = """
two_cores:
  description: For two cores.
  run: {train_ratio: 32, replay: {capacity: 50_000}}
  hyper: {size: 1m}
one_gpu:
  description: For one GPU.
  run: {train_ratio: 256}
cartpole:
  description: CartPole of any version.
  match: ["CartPole-*"]
  hyper: {learning_rate: 1e-3, heads: {layers: 2}}
cartpole_v1:
  description: This CartPole.
  match: ["Cart*", "CartPole-v1"]
  run: {tracking: {tags: {team.name: dreamers}}}
broken:
  description: Names a key that does not exist.
  run: {train_ration: 1}
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    info = folder / "toyalgo-0.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toyalgo\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(
        "[oneiros.algorithms]\ntoy = toy_algorithm:Toy\nmissing = toy_nowhere:Toy\nplain = toy_algorithm:Heads\n"
    )
    (folder / "toy_algorithm.py").write_text(textwrap.dedent(MODULE))
    (folder / "toy_presets.yaml").write_text(PRESETS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    yield folder
    sys.modules.pop("toy_algorithm", None)
