"""Acting for env runners on the learner's device: they send observations and get actions, and hold no model.

What is kept here is weights and nothing of any stream: a runner sends its recurrent state along and gets the next one
back. So nothing is lost with this process but the requests in flight, which are asked again of the one that Ray starts
in its place, and nothing is left behind here by a runner that dies.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.algorithms.contract import Agent, Field, Mode, Tensors
from oneiros.platform.engine.config import WorldModelConfig
from oneiros.platform.engine.published import Published
from oneiros.platform.serving.batching import Batcher
from oneiros.platform.training.agents import build_agent
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
CUDA_DEVICES = "CUDA_VISIBLE_DEVICES"
SECONDS_FOR_WEIGHTS = 60.0
"""How long new weights may take from the learner's host before acting goes on with the old ones."""


class Place(NamedTuple):
    """Where a learner computes."""

    node: str
    """Ray's id of the host."""
    device: str
    """PyTorch's name of the device, among those that the process sees."""
    visible: str | None
    """The CUDA devices that the process sees, as CUDA wants to be told."""


class Request(NamedTuple):
    """One step of the ``N`` environments of a runner."""

    obs: Arrays
    is_first: NDArray[np.bool_]
    state: Arrays
    """The recurrent state, each entry ``(N, ...)``."""


class Answer(NamedTuple):
    """What ``Policy.act`` returns, and which weights acted."""

    action: Arrays
    state: Arrays
    latents: Arrays
    number: int
    """Of the publication."""
    updates: int


def start_inference(config: WorldModelConfig, env_spaces: tuple[spaces.Space[Any], ...], place: Place) -> Any:
    """Start the process that acts for all env runners, on the device at ``place``; returns its handle.

    It is a guest there: Ray need not know that two processes share what it gave to the learner.
    """
    return (
        ray.remote(InferenceServer)
        .options(
            num_cpus=0,
            max_restarts=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=True),
        )
        .remote(config, *env_spaces, place)
    )


class InferenceServer:
    """Acts for all env runners; a Ray actor.

    Requests that arrive while the policy computes are answered together by its next step; nobody waits for a batch to
    fill. A runner waits for its answer, so there are never more requests than runners. Training and evaluation have
    weights of their own.
    """

    def __init__(
        self,
        config: WorldModelConfig,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        place: Place,
    ) -> None:
        """Take a place on the device; weights come with ``take``."""
        if place.visible is not None:
            # Before PyTorch has looked for devices. Ray hides them all from an actor that asks for none.
            os.environ[CUDA_DEVICES] = place.visible
        torch.set_num_threads(config.env_runner_threads)
        self._config = config
        self._spaces = observation_space, action_space
        self._device = place.device
        self._copies: dict[Mode, PolicyCopy] = {}
        self._taking = asyncio.Lock()

    async def take(self, mode: Mode, published: Published) -> bool:
        """Act with these weights from now on; returns whether there are any to act with, if only older ones."""
        async with self._taking:
            copy = self._copies.get(mode)
            if copy is not None and copy.newest >= published.number:
                return True
            try:
                weights = await asyncio.wait_for(_fetched(published.weights), SECONDS_FOR_WEIGHTS)
            except (RayError, TimeoutError) as error:
                log.warning(
                    "new weights do not come from the learner that held them (%s); acting goes on with the old ones",
                    error,
                )
                return copy is not None
            if copy is None:
                copy = PolicyCopy(await asyncio.to_thread(self._build, mode), mode)
                self._copies[mode] = copy
            copy.give(weights, published.number, published.updates)
            return True

    async def describe(self, mode: Mode, num_envs: int) -> tuple[Mapping[str, Field], Arrays] | None:
        """Return the latent fields, and the state of so many environments before their first step; None as ``act``."""
        copy = self._copies.get(mode)
        return None if copy is None else (copy.agent.latent_fields, _arrays(copy.agent.initial_state(num_envs)))

    async def act(self, mode: Mode, request: Request) -> Answer | None:
        """Choose actions; None if there are no weights, which is so after this process was started again."""
        copy = self._copies.get(mode)
        if copy is None:
            return None
        answer: Answer = await copy.batcher.submit(request)
        return answer

    async def process_id(self) -> int:
        """Return the id of the process that this runs in."""
        return os.getpid()

    def _build(self, mode: Mode) -> Agent:
        config = self._config
        seed = (config.seed or 0) + (1 if mode == "train" else 1_000_001)
        return build_agent(
            config.agent, config.hyperparameters(), *self._spaces, device=self._device, seed=seed, role="policy"
        )


class PolicyCopy:
    """A policy that answers several requests at once."""

    def __init__(self, agent: Agent, mode: Mode) -> None:
        self.agent = agent
        self.mode: Mode = mode
        self.newest = -1
        """Number of the newest publication that it was given."""
        self.batcher: Batcher[Request] = Batcher(self.answer)
        self._device = torch.device(getattr(agent, "device", "cpu"))
        self._given: list[tuple[Mapping[str, torch.Tensor], int, int]] = []
        self._number, self._updates = -1, 0

    def give(self, weights: Mapping[str, torch.Tensor], number: int, updates: int) -> None:
        """Have the next step taken with these weights."""
        self.newest = number
        self._given = [(weights, number, updates)]

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Take one step for all of them."""
        while self._given:
            weights, self._number, self._updates = self._given.pop()
            self.agent.load_policy_state(weights)
        with torch.inference_mode():
            action, state, latents = self.agent.act(
                self._joined([request.obs for request in requests]),
                torch.from_numpy(np.concatenate([request.is_first for request in requests])).to(self._device),
                self._joined([request.state for request in requests]),
                self.mode,
            )
        ends = np.cumsum([len(request.is_first) for request in requests])[:-1]
        parts = zip(_split(action, ends), _split(state, ends), _split(latents, ends), strict=True)
        return [Answer(*part, number=self._number, updates=self._updates) for part in parts]

    def _joined(self, parts: Sequence[Arrays]) -> Tensors:
        return {
            key: torch.from_numpy(np.concatenate([part[key] for part in parts])).to(self._device) for key in parts[0]
        }


async def _fetched(reference: Any) -> Any:
    return await reference


def _arrays(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    return {key: value.cpu().numpy() for key, value in tensors.items()}


def _split(tensors: Mapping[str, torch.Tensor], ends: NDArray[np.int64]) -> list[Arrays]:
    """One part a request."""
    parts = {key: np.split(value, ends) for key, value in _arrays(tensors).items()}
    return [{key: part[index] for key, part in parts.items()} for index in range(len(ends) + 1)]
