"""RLlib's ``Learner`` around ``LearnerCore``: actors, placement and process groups are RLlib's, learning is ours."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from oneiros.algorithms.contract import Agent, DistributedAgent
from oneiros.platform.data import fill, open_data
from oneiros.platform.engine.config import WorldModelConfig
from oneiros.platform.engine.inference import CUDA_DEVICES, Place
from oneiros.platform.engine.torch_flags import kept_torch_flags
from oneiros.platform.engine.transfer import Elsewhere, this_host
from oneiros.platform.training.agents import build_agent, resolve_device
from oneiros.platform.training.assembly import build_core
from oneiros.platform.training.fine_tuning import adopt
from ray.exceptions import GetTimeoutError, RayError
from ray.rllib.core.learner.learner import Learner
from torch import Tensor

log = logging.getLogger(__name__)

SEEDS_APART = 7_919
"""Between the seeds of two learners: more than runs of neighbouring seeds lie apart."""
SECONDS_FOR_CHUNKS = 10.0
"""How long chunks may take from the env runners' hosts before they count as lost."""


@dataclass
class LearnResult:
    """What a learner says after a slice of work; small, because it goes through the driver."""

    ready: bool
    """Whether the replay shard can be sampled."""
    updates: int
    """Updates in all; the version of the weights."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Means over the updates read in this slice."""
    statistics: dict[str, float] = field(default_factory=dict)
    """Counters, and the state of the replay shard."""
    weights: list[ray.ObjectRef[Any]] = field(default_factory=list)
    """At most one: the policy weights of version ``updates``. In a list, so that the driver does not fetch them."""
    chunks_lost: int = 0
    """Chunks whose owner died before this learner could fetch them."""
    seconds: float = 0.0
    """What the updates took."""


class WorldModelLearner(Learner):
    """Hosts one ``LearnerCore`` with its replay shard.

    RLlib builds it in the driver (``num_learners=0``) or as actors joined in a process group. None of RLlib's own
    update path runs: the algorithm calls ``learn``, and asks for saves, loads and reports by name.
    """

    framework = "torch"
    config: WorldModelConfig

    def __init__(self, **kwargs: Any) -> None:
        with kept_torch_flags():
            super().__init__(**kwargs)

    # ---- ours --------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Build agent, replay shard and core; raises ``UnsupportedSpace`` for spaces the agent cannot serve."""
        if self._is_built:
            return
        config, spec = self.config, self._module_spec
        assert spec is not None
        observation_space, action_space = spec.observation_space, spec.action_space
        assert observation_space is not None and action_space is not None
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        if config.num_learners:
            torch.set_num_threads(config.threads_of_learner() or torch.get_num_threads())
        self._computes_on = device = resolve_device(config.device)
        hyper = config.hyperparameters()
        hyper = hyper.model_copy(update={"batch_size": hyper.batch_size // self.world})
        seed = config.seed or 0
        self.agent: Agent = build_agent(
            config.agent,
            hyper,
            observation_space,
            action_space,
            device=str(device),
            # The same on every learner, so that all begin with the same weights.
            seed=seed,
        )
        if self.world > 1:
            assert isinstance(self.agent, DistributedAgent), "the config refuses several learners of any other"
            self.agent.join(average_over_learners, gather_over_learners)
            self._reseed()
        shard = config.replay_directory and Path(config.replay_directory) / f"shard-{self.rank}"
        self.core = build_core(
            self.agent,
            hyper,
            observation_space,
            action_space,
            device=device,
            capacity=max(1, config.replay_capacity // self.world),
            directory=shard or None,
            online=config.replay_online,
            mixture=config.replay_mixture,
            latent_stride=config.replay_latent_stride,
            seed=seed + SEEDS_APART * self.rank,
            most_nonfinite=config.most_nonfinite_updates,
            ahead=config.num_env_runners > 0 or device.type == "cuda",
        )
        self._is_built = True
        self._lost_chunks = 0

    def learn(self, chunks: Sequence[Sequence[ray.ObjectRef[Any]]], updates: int, weights: bool) -> LearnResult:
        """Store ``chunks`` (each a list of one reference), take ``updates`` steps, and hand out weights if asked to."""
        lost = self._take([reference for (reference,) in chunks])
        begun = time.perf_counter()
        metrics = self.core.update(updates) if updates else {}
        seconds = time.perf_counter() - begun
        published = [ray.put(self.core.policy_state())] if weights and self.rank == 0 else []
        return LearnResult(self.core.ready, self.core.updates, metrics, self.core.metrics(), published, lost, seconds)

    def _take(self, chunks: Sequence[ray.ObjectRef[Any]]) -> int:
        """Store chunks, and return how many were lost with the env runners that held them."""
        if not chunks:
            return 0
        # All of them at once: a host that is cut off answers nothing, and one by one its chunks would take minutes.
        until = time.monotonic() + SECONDS_FOR_CHUNKS
        here = set(ray.wait(list(chunks), num_returns=len(chunks), timeout=SECONDS_FOR_CHUNKS)[0])
        lost = 0
        for chunk in chunks:
            try:
                if chunk not in here:
                    raise GetTimeoutError(f"not here after {SECONDS_FOR_CHUNKS} s")
                # What is here may go with the runner that owned it before it is read: without a limit, a wait for ever.
                self.core.add(ray.get(chunk, timeout=max(1.0, until - time.monotonic())))
            except RayError as error:
                # The runner that owned it died, or was cut off, after it had announced the chunk.
                lost += 1
                self.core.break_streams()
                if not self._lost_chunks:
                    log.warning(
                        "a chunk was lost with the env runner that held it (%s); further ones are only counted",
                        type(error).__name__,
                    )
                self._lost_chunks += 1
        return lost

    def save(self, directory: str) -> int:
        """Write this learner's part of a checkpoint into ``directory``; returns the updates in it."""
        self.core.save(Path(directory) / f"learner-{self.rank}")
        return self.core.updates

    def elsewhere(self, directory: str) -> Elsewhere | None:
        """Return None if this process sees the driver's ``directory``, else where it has room for a copy."""
        return None if Path(directory).is_dir() else Elsewhere(this_host(), tempfile.gettempdir())

    def discard(self, copy: str | None) -> None:
        """Remove a temporary copy of a checkpoint, or of parts of one, from this host."""
        if copy is not None:
            shutil.rmtree(copy, ignore_errors=True)

    def load(self, directory: str, learners: int) -> None:
        """Restore from a checkpoint that ``learners`` learners wrote; raises ``CheckpointError``."""
        root = Path(directory)
        if learners == self.world:
            self.core.load(root / f"learner-{self.rank}")
        else:
            self.core.load_shared([root / f"learner-{rank}" for rank in range(learners)], self.rank, self.world)
            if self.world > 1:
                # They all have the first one's noise now.
                self._reseed()
        if self.config.num_env_runners:
            # The runners did not go back with the replay.
            self.core.break_streams()

    def recover(self, directory: str, learners: int) -> None:
        """Take the place of a learner that died: weights from a checkpoint, experience from the disk if it is there.

        Raises ``CheckpointError``.
        """
        if len(self.core.replay):
            self.core.load_without_replay(Path(directory) / f"learner-{self.rank % learners}")
            self.core.break_streams()
        else:
            self.load(directory, learners)

    def begin_from(self, learnt: dict[str, Tensor], reset: Sequence[str]) -> None:
        """Take over what another run's agent has learnt; raises ``CheckpointError`` and ``ConfigError``."""
        adopt(self.agent, learnt, reset)

    def prefill(self, place: str) -> None:
        """Put this learner's share of a data set, which its host must see, into the replay; raises ``DataError``."""
        fill(self.core.replay, open_data(place), part=self.rank, parts=self.world)

    def report(self) -> dict[str, Tensor]:
        """Return the agent's open-loop predictions of replayed sequences; nothing before there are any."""
        return self.core.report() if self.core.ready else {}

    def policy_state(self) -> dict[str, Tensor]:
        """Return the newest policy weights."""
        return self.core.policy_state()

    def place(self) -> Place:
        """Return where this learner computes."""
        return Place(ray.get_runtime_context().get_node_id(), str(self._computes_on), os.environ.get(CUDA_DEVICES))

    def process_id(self) -> int:
        """Return the id of the process that this learner runs in."""
        return os.getpid()

    def shutdown(self) -> None:
        """Stop the stager."""
        if self._is_built:
            self.core.close()

    def _reseed(self) -> None:
        assert isinstance(self.agent, DistributedAgent)
        self.agent.reseed((self.config.seed or 0) + SEEDS_APART * (1 + self.rank))

    # ---- what RLlib asks of a learner --------------------------------------------------------------------------------

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state exchange is not used: weights travel with requests, checkpoints are files."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """See ``get_state``."""

    def get_checkpointable_components(self) -> list[Any]:
        """None in RLlib's sense: ``save`` writes everything."""
        return []

    def _unused(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("RLlib's own update path is not part of this learner; use learn()")

    configure_optimizers_for_module = _unused
    compute_gradients = _unused
    apply_gradients = _unused
    compute_loss_for_module = _unused
    get_param_ref = _unused
    get_parameters = _unused
    _convert_batch_type = _unused
    _update = _unused
    _get_tensor_variable = _unused
    _get_optimizer_lr: Any = staticmethod(_unused)
    _set_optimizer_lr: Any = staticmethod(_unused)
    _get_clip_function: Any = staticmethod(_unused)
    _get_global_norm_function: Any = staticmethod(_unused)


def average_over_learners(tensor: Tensor) -> None:
    """Average ``tensor`` over all learners, in place."""
    dist.all_reduce(tensor)
    tensor /= dist.get_world_size()


def gather_over_learners(tensor: Tensor) -> Tensor:
    """Concatenate every learner's ``tensor`` along the first axis, in the order of ranks."""
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
