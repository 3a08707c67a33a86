"""A learner as in training, fed from a replay that is full of made-up experience."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.dreamerv3.config import Hyperparameters
from oneiros.algorithms.nn.capture import WARM_UP
from oneiros.algorithms.nn.precision import choose_compile
from oneiros.envs.spaces import flatten_action_space, flatten_observation_space
from oneiros.platform.bench.kinds import find_kind
from oneiros.platform.bench.rows import fill
from oneiros.platform.config import ConfigError
from oneiros.platform.training.agents import build_agent, hyperparameters, resolve_device, row_fields
from oneiros.platform.training.assembly import build_core
from oneiros.platform.training.core import LearnerCore

LEAST_ROWS = 4000


@dataclass(frozen=True)
class LearnerSettings:
    """What is measured. ``overrides`` are hyperparameters by name, over everything else here; None: the default."""

    size: str = "1m"
    obs: str = "state"
    device: str = "cpu"
    precision: str = "auto"
    compile: str = "auto"
    batch_size: int | None = None
    batch_length: int | None = None
    imagination_length: int | None = None
    replay_rows: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def hyperparameters(self) -> Hyperparameters:
        """Validated; raises ``ConfigError``."""
        given = {
            "batch_size": self.batch_size,
            "batch_length": self.batch_length,
            "imagination_length": self.imagination_length,
        }
        values: dict[str, Any] = {"size": self.size, "precision": self.precision, "compile": self.compile}
        values |= {key: value for key, value in given.items() if value is not None}
        found: Hyperparameters = hyperparameters("dreamerv3", values | dict(self.overrides))
        return found


class Learner:
    """Agent, replay and core, ready for the first update.

    ``settings.device`` may be any that ``oneiros train`` takes. Raises ``ConfigError``.
    """

    def __init__(self, settings: LearnerSettings, *, eager: bool = False) -> None:
        """``eager`` neither compiles nor captures, whatever the settings say: for counting operations."""
        self.settings = settings
        self.kind = find_kind(settings.obs)
        hyper = settings.hyperparameters()
        if eager:
            hyper = hyper.model_copy(update={"compile": "off", "cuda_graph": False})
        self.hyper = hyper
        self.device = checked_device(settings.device)
        spaces = self.kind.observation_space, self.kind.action_space
        try:
            agent = build_agent("dreamerv3", hyper, *spaces, device=str(self.device))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        assert isinstance(agent, DreamerV3)
        self.agent: DreamerV3 = agent
        window = hyper.batch_length + hyper.replay_context
        rows = settings.replay_rows or max(LEAST_ROWS, 4 * hyper.batch_size * window)
        self.core: LearnerCore = build_core(
            agent,
            hyper,
            *spaces,
            device=self.device,
            capacity=rows,
            # As in a run: on a GPU batches are staged beside the update.
            ahead=self.device.type == "cuda",
        )
        fields = row_fields(agent, flatten_observation_space(spaces[0]), flatten_action_space(spaces[1]))
        try:
            fill(self.core.replay, self.kind, fields, rows)
            if not self.core.ready:
                raise ConfigError(f"replay_rows is {rows}, too few for sequences of {window} rows in 8 streams.")
        except BaseException:
            self.core.close()
            raise

    @property
    def parameters(self) -> int:
        """Trained parameters; the slow critic, a copy of the critic's, is not among them."""
        return self.agent.weights.flat.numel()

    @property
    def compiles(self) -> bool:
        """Whether pieces of the update are compiled."""
        return choose_compile(self.hyper.compile, self.device)

    @property
    def captures(self) -> bool:
        """Whether the update is a CUDA graph."""
        return self.device.type == "cuda" and self.hyper.cuda_graph

    def update(self) -> None:
        """One complete update: sample, stage, learn, write back, read metrics; on a GPU the last two a turn late."""
        self.core.update(1)

    def settle(self) -> int:
        """Update until nothing is compiled or recorded any more and one steady update has ended; returns how many."""
        updates, least = 0, (WARM_UP + 1 if self.captures else 0)
        while True:
            graphs = _compiled_graphs()
            self.update()
            updates += 1
            if updates > least and _compiled_graphs() == graphs:
                break
        self.core.flush()
        return updates

    def close(self) -> None:
        """Stop the threads."""
        self.core.close()


def checked_device(name: str) -> torch.device:
    """The device of this name; raises ``ConfigError``."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device is {name!r}; it must be auto, cpu, cuda or cuda:N.")
    return resolve_device(name)


def _compiled_graphs() -> int:
    """How many graphs this process has compiled so far."""
    # Not imported here: loading the compiler takes a second, which an eager update does not spend.
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])
