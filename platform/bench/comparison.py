"""Oneiros' DreamerV3 beside RLlib's own: as many parameters, the same batch, in turns, each in its own process.

In one process RLlib's would gain from what ours asks of the memory allocator, and ours would find the heap as RLlib's
left it.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from oneiros.platform.bench.durations import Durations
from oneiros.platform.bench.kinds import find_kind
from oneiros.platform.bench.learner import Learner, LearnerSettings
from oneiros.platform.bench.machine import OtherLoad, describe
from oneiros.platform.config import ConfigError

LARGEST_DIFFERENCE = 0.1


@dataclass(frozen=True)
class Comparison:
    """What is compared. ``widths`` are our hyperparameters that come to as many parameters as ``rllib_size`` has."""

    rllib_size: str = "XS"
    widths: Mapping[str, int] = field(
        # Near the proportions of the paper's sizes; multiples of 32, as those are, for the sake of vector units.
        default_factory=lambda: {"deter": 1280, "hidden": 160, "classes": 8, "units": 128}
    )
    batch_size: int = 16
    batch_length: int = 64
    imagination_length: int = 15
    precision: str = "auto"
    compile: str = "auto"


class RLlibLearner:
    """RLlib's DreamerV3 learner for the ``state`` kind, updated as its algorithm does: one ``Learner.update`` a batch.

    The batches lie ready: what its replay buffer takes to make one is not measured. Raises ``ConfigError`` where Ray
    is not installed.
    """

    def __init__(self, settings: Comparison) -> None:
        try:
            import ray
            from ray.rllib.algorithms.dreamerv3 import DreamerV3Config
            from ray.rllib.core import DEFAULT_MODULE_ID
            from ray.rllib.policy.sample_batch import SampleBatch
        except ImportError as error:
            raise ConfigError(
                f"RLlib's DreamerV3 cannot be imported ({error}); pip install 'ray[rllib]' brings it."
            ) from error
        logging.getLogger("ray.rllib").setLevel(logging.ERROR)
        kind = find_kind("state")
        spaces = kind.observation_space, kind.action_space
        config = DreamerV3Config().environment(observation_space=spaces[0], action_space=spaces[1])
        config.training(
            model_size=settings.rllib_size,
            batch_size_B=settings.batch_size,
            batch_length_T=settings.batch_length,
            horizon_H=settings.imagination_length,
        )
        config.learners(num_learners=0)
        self._learner = config.build_learner(spaces={DEFAULT_MODULE_ID: spaces})
        self._sample_batch: Any = SampleBatch
        generator = np.random.default_rng(0)
        self._batches = [_rllib_batch(generator, settings) for _ in range(4)]
        self._next = 0
        module: Any = self._learner.module[DEFAULT_MODULE_ID]
        self.parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        """Trained ones, without the critic's slow copy."""
        self.version = ray.__version__

    def update(self) -> dict[str, Any]:
        """One update of world model, actor and critic; returns its metrics."""
        batch = dict(self._batches[self._next % len(self._batches)])
        self._next += 1
        result: dict[str, Any] = self._learner.update(
            batch=self._sample_batch(batch).as_multi_agent(), timesteps={"num_env_steps_sampled_lifetime": 0}
        )
        return result


class RLlibProcess:
    """An ``RLlibLearner`` in a process of its own. Raises ``ConfigError`` as that does."""

    def __init__(self, settings: Comparison) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = theirs, settings, torch.get_num_threads()
        self._process = context.Process(target=_serve, args=arguments, name="rllib", daemon=True)
        self._process.start()
        theirs.close()
        answer = self._read()
        if isinstance(answer, str):
            raise ConfigError(answer)
        self.parameters: int = answer[0]
        self.version: str = answer[1]
        self.durations = Durations()

    def update(self) -> None:
        """Have it update once; how long that took, by its own clock, joins ``durations``."""
        wall, cpu = self._read(asking=True)
        self.durations.wall.append(wall)
        self.durations.cpu.append(cpu)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()

    def _read(self, asking: bool = False) -> Any:
        try:
            if asking:
                self._pipe.send(True)
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ConfigError("The process with RLlib's DreamerV3 ended without an answer.") from error


def _serve(pipe: Connection, settings: Comparison, threads: int) -> None:
    """Build RLlib's learner, update it once, and then as often as asked; the other end closes when it is enough."""
    torch.set_num_threads(threads)
    try:
        learner = RLlibLearner(settings)
    except ConfigError as error:
        pipe.send(str(error))
        return
    learner.update()
    pipe.send((learner.parameters, learner.version))
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        durations = Durations()
        durations.time(learner.update)
        pipe.send((durations.wall[0], durations.cpu[0]))


def _rllib_batch(generator: np.random.Generator, settings: Comparison) -> dict[str, NDArray[Any]]:
    kind, lead = find_kind("state"), (settings.batch_size, settings.batch_length)
    is_first = np.zeros(lead, bool)
    is_first[:, 0] = True
    return {
        "obs": generator.standard_normal((*lead, *kind.observation_space.shape), dtype=np.float32),
        "actions": generator.uniform(-1, 1, (*lead, *(kind.action_space.shape or ()))).astype(np.float32),
        "rewards": generator.standard_normal(lead, dtype=np.float32),
        "is_first": is_first,
        "is_last": np.zeros(lead, bool),
        "is_terminated": np.zeros(lead, bool),
        "is_truncated": np.zeros(lead, bool),
    }


def measure_against_rllib(settings: Comparison, updates: int) -> dict[str, Any]:
    """``speedup``: our updates a second over RLlib's, by medians of ``updates`` updates of each, taken in turns.

    Ours is the complete update, replay and write-back included. Raises ``ConfigError``, also if the parameter counts
    differ by more than a tenth.
    """
    theirs = RLlibProcess(settings)
    try:
        return _in_turns(theirs, settings, updates)
    finally:
        theirs.close()


def _in_turns(theirs: RLlibProcess, settings: Comparison, updates: int) -> dict[str, Any]:
    ours = Learner(
        LearnerSettings(
            precision=settings.precision,
            compile=settings.compile,
            batch_size=settings.batch_size,
            batch_length=settings.batch_length,
            imagination_length=settings.imagination_length,
            overrides=settings.widths,
        )
    )
    try:
        ratio = ours.parameters / theirs.parameters
        if abs(ratio - 1) > LARGEST_DIFFERENCE:
            raise ConfigError(
                f"Oneiros has {ours.parameters:,} parameters and RLlib's {settings.rllib_size} {theirs.parameters:,}: "
                "they must not differ by more than a tenth to be compared."
            )
        settled_after = ours.settle()
        durations = Durations()
        with OtherLoad() as others:
            for _ in range(updates):
                theirs.update()
                durations.time(ours.update)
        return {
            "speedup": theirs.durations.median / durations.median,
            "updates": updates,
            "oneiros": {
                **durations.summary(),
                "parameters": ours.parameters,
                "startup_updates": settled_after,
                "widths": dict(settings.widths),
                "precision": str(ours.agent.dtype).removeprefix("torch."),
                "compile": ours.compiles,
            },
            "rllib": {
                **theirs.durations.summary(),
                "parameters": theirs.parameters,
                "size": settings.rllib_size,
                "precision": "float32",
                "compile": False,
                "ray": theirs.version,
            },
            "parameter_ratio": ratio,
            "batch_size": settings.batch_size,
            "batch_length": settings.batch_length,
            "imagination_length": settings.imagination_length,
            "obs": "state",
            "other_load": others.share,
            **describe(ours.device),
        }
    finally:
        ours.close()
