"""What engines without Ray have in common: an agent, its core, and checkpoints, in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymnasium import spaces
from oneiros.platform.checkpoint import (
    Description,
    Manifest,
    open_checkpoint,
    require_algorithm,
    require_spaces,
    write_checkpoint,
)
from oneiros.platform.config import RunConfig
from oneiros.platform.rollout import EvaluationResult
from oneiros.platform.training.agents import agent_name, build_agent, hyperparameters, resolve_device
from oneiros.platform.training.assembly import build_core
from oneiros.platform.training.compiling import settle_compile
from oneiros.platform.training.engine import Videos
from oneiros.platform.training.fine_tuning import adopt, read_learnt
from oneiros.platform.training.playing import play
from oneiros.platform.training.policy_file import save_policy
from oneiros.platform.training.rates import Rates


class OneProcessEngine(ABC):
    """Learns here what its subclasses bring into the replay."""

    def __init__(
        self, config: RunConfig, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], *, online: bool
    ) -> None:
        """``online`` has each row drawn soon after it came. Raises ``ConfigError`` and ``UnsupportedSpace``."""
        self.config = config
        self._spaces = observation_space, action_space
        self._hyper = hyperparameters(config.agent, settle_compile(config))
        self._rows = self._hyper.batch_size * self._hyper.batch_length
        self._device = resolve_device(config.device)
        self.agent = build_agent(config.agent, self._hyper, *self._spaces, device=str(self._device), seed=config.seed)
        self.core = build_core(
            self.agent,
            self._hyper,
            *self._spaces,
            device=self._device,
            # Beside a GPU, speed counts more than repeating bit for bit, which its kernels do not do anyway.
            ahead=self._device.type == "cuda",
            capacity=config.replay.capacity,
            directory=config.run_dir / "replay" if config.replay.on_disk and config.run_dir else None,
            online=online,
            mixture=config.replay.mixture,
            latent_stride=config.replay.latent_stride,
            seed=config.seed,
        )
        self._rates = Rates()

    @property
    @abstractmethod
    def env_steps(self) -> int:
        """Policy steps taken so far."""

    def save(self, path: Path) -> None:
        """Write everything into the checkpoint ``path``; raises ``CheckpointWriteError``."""
        write_checkpoint(path, self._write)

    def evaluate(self, episodes: int, seed: int) -> EvaluationResult:
        """Play ``episodes`` with a copy of the policy, in environments of their own."""
        return play(
            self.config, self._hyper, self.core, self._spaces, episodes=episodes, seed=seed, env_steps=self.env_steps
        )

    def begin_from(self, checkpoint: Path, reset: Sequence[str]) -> None:
        """Take over what the agent of another run has learnt; raises ``CheckpointError`` and ``ConfigError``."""
        adopt(self.agent, read_learnt(checkpoint), reset)

    def videos(self) -> Videos:
        """Return open-loop predictions of replayed sequences beside what happened; nothing before there are any."""
        report = self.core.report() if self.core.ready else {}
        return {name: video.numpy() for name, video in report.items() if video.ndim == 4}

    def close(self) -> None:
        """Close the replay."""
        self.core.close()

    def _opened(self, path: Path) -> Manifest:
        """The manifest of a checkpoint that fits this engine; raises ``CheckpointError``."""
        manifest = open_checkpoint(path)
        require_algorithm(manifest, path, agent_name(self.config.agent))
        require_spaces(manifest, path, *self._spaces)
        return manifest

    def _write(self, directory: Path) -> Description:
        self.core.save(directory / "learner-0")
        save_policy(self.core.policy_state(), directory)
        return Description(
            algorithm=agent_name(self.config.agent),
            hyperparameters=self._hyper.model_dump(mode="json"),
            counters={"env_steps": self.env_steps, "updates": self.core.updates, "episodes": 0, "learners": 1},
            observation_space=self._spaces[0],
            action_space=self._spaces[1],
            config=self.config.to_dict(),
        )
