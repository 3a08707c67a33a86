"""The env-runner loop: a policy acts in ``N`` environments at once, and what happened is kept as rows.

Time ``t`` of one environment is one row: the observation, the reward that arriving at it paid, its flags, and the
action executed after it. The last observation of an episode has a row of its own (``is_last``, action zeros, and
``is_terminal`` if the environment terminated rather than ran out of time); the row after it holds the first
observation of the next episode. That is Gymnasium's next-step autoreset: the step that resets executes no action.

An environment that faults (raises, hangs, dies, or returns what its spaces do not allow) is reset in place: the row of
its last good observation becomes ``is_last``, the next row begins a new episode, and the fault is counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from oneiros.algorithms.contract import LATENT_VALID, TRAINING_ONLY, Mode, Policy, Tensors
from oneiros.envs.spaces import ActionCodec, ObservationCodec
from oneiros.envs.vector.fault import EnvironmentBroken, EnvironmentFault
from oneiros.envs.vector.slot import MOST_FAULTS
from oneiros.envs.vector.subprocesses import SubprocessVector
from oneiros.envs.vector.sync import SyncVector
from oneiros.platform.rollout.chunk import Chunk
from oneiros.platform.rollout.episode import Episode, EpisodeTracker, episode_fault, extras

log = logging.getLogger(__name__)

Array = NDArray[Any]
Flags = NDArray[np.bool_]
FLAGS = ("is_first", "is_last", "is_terminal")
GENERATION = 1 << 32
"""Added to the stream ids each time their rows stop following those before: runners' own ids stay below it."""


class PolicyFault(RuntimeError):
    """The policy returned an action that cannot be executed."""


class Rollout:
    """Collects rows from a vector environment with a policy.

    The environments may be any Gymnasium vector environment with next-step autoreset; those that
    ``oneiros.envs.registry.make_vector`` builds survive faults one by one, others are reset together.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        policy: Policy,
        *,
        streams: int = 0,
        mode: Mode = "train",
        random_steps: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Begin an episode in each environment.

        ``streams`` is the first of the ``N`` stream ids; other rollouts that fill the same replay need others, below
        2**32. The first ``random_steps`` policy steps are uniform actions (drawn from ``seed``), without asking the
        policy. ``device`` is where the policy expects its tensors.
        """
        autoreset = env.metadata.get("autoreset_mode")
        if autoreset is not AutoresetMode.NEXT_STEP:
            raise ValueError(f"a rollout needs environments with next-step autoreset, not {autoreset}")
        self.env = env
        self.policy = policy
        self.mode: Mode = mode
        self.num_envs: int = env.num_envs
        self.env_steps = 0
        self.policy_version = 0
        self.streams: NDArray[np.int64] = np.arange(streams, streams + self.num_envs, dtype=np.int64)
        self.observations = ObservationCodec(env.single_observation_space)
        self.actions = ActionCodec(env.single_action_space)
        self._device = torch.device(device)
        self.random_left = random_steps
        """Policy steps still to be taken at random."""
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._survives = isinstance(env, SyncVector | SubprocessVector)
        self._resets_in_a_row = 0
        self._generation = 0
        self._torn = False
        self._finished: list[Episode] = []
        self._faults: Counter[str] = Counter()
        self._logged: set[str] = set()
        self._tracker = EpisodeTracker(self.num_envs)
        self._state: Tensors = policy.initial_state(self.num_envs)
        self._followed: Flags = np.zeros(self.num_envs, np.bool_)
        self._obs: dict[str, Array] = {}
        self._reward: NDArray[np.float32] = np.zeros(self.num_envs, np.float32)
        self._is_first: Flags = np.ones(self.num_envs, np.bool_)
        self._is_last: Flags = np.zeros(self.num_envs, np.bool_)
        self._is_terminal: Flags = np.zeros(self.num_envs, np.bool_)
        batch, infos = env.reset()
        self._begin(self._flatten(batch), infos)

    def collect(self, steps: int) -> Chunk:
        """Advance every environment by ``steps`` rows.

        Raises ``EnvironmentBroken`` if an environment cannot be brought back, and ``PolicyFault``.
        """
        rows = self._allocate(steps)
        env_steps = 0
        self._torn = True
        with torch.inference_mode():
            for t in range(steps):
                env_steps += self._advance(rows, t)
        self._torn = False
        self.env_steps += env_steps
        return Chunk(rows, self.streams.copy(), env_steps, self.policy_version)

    def episodes(self) -> list[Episode]:
        """Episodes that ended since the last call, in the order in which they did."""
        finished, self._finished = self._finished, []
        return finished

    @property
    def longest(self) -> int:
        """Policy steps of the longest episode under way."""
        return int(self._tracker.lengths.max())

    def metrics(self) -> dict[str, float]:
        """Totals since the beginning: policy steps, and faults by kind."""
        return {
            "env_steps": self.env_steps,
            **{f"faults/{kind}": count for kind, count in sorted(self._faults.items())},
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that going on needs: numbers, strings, arrays, tensors, and lists and dicts of these.

        ``environments`` is None where one of them cannot say its state, and after a ``collect`` that raised: its rows
        are lost, and what follows them joins nothing.
        """
        env = self.env
        environments = env.get_states() if isinstance(env, SyncVector | SubprocessVector) and not self._torn else None
        return {
            "environments": environments,
            "recurrent": {key: value.clone().cpu() for key, value in self._state.items()},
            "observation": {key: value.copy() for key, value in self._obs.items()},
            "reward": self._reward.copy(),
            **{flag: getattr(self, f"_{flag}").copy() for flag in FLAGS},
            "scores": self._tracker.scores.copy(),
            "lengths": self._tracker.lengths.copy(),
            "streams": self.streams.copy(),
            "generation": self._generation,
            "rng": dict(self._rng.bit_generator.state),
            "random_left": self.random_left,
            "followed": self._followed.copy(),
            "env_steps": self.env_steps,
            "policy_version": self.policy_version,
            "faults": dict(self._faults),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned, with the same environments and the same number of them.

        Where the environments' states are not in it, each begins a new episode, in a stream with a new id: the rows of
        the episode that was under way stay in the replay as they are, without an ``is_last`` row.
        """
        if len(state["streams"]) != self.num_envs:
            raise ValueError(f"the saved rollout has {len(state['streams'])} environments, this one {self.num_envs}")
        self._rng.bit_generator.state = dict(state["rng"])
        self.random_left = int(state["random_left"])
        self.env_steps = int(state["env_steps"])
        self.policy_version = int(state["policy_version"])
        self._faults = Counter(state["faults"])
        self._generation = int(state["generation"])
        self.streams = np.array(state["streams"], np.int64)
        self._finished = []
        self._tracker = EpisodeTracker(self.num_envs)
        if state["environments"] is None or not isinstance(self.env, SyncVector | SubprocessVector):
            self._restart_streams()
            return
        self.env.reset()
        self.env.set_states(state["environments"])
        self._state = {key: torch.as_tensor(value).to(self._device) for key, value in state["recurrent"].items()}
        self._obs = {key: np.array(value) for key, value in state["observation"].items()}
        self._reward = np.array(state["reward"], np.float32)
        self._is_first, self._is_last, self._is_terminal = (np.array(state[flag], np.bool_) for flag in FLAGS)
        self._followed = np.array(state.get("followed", np.full(self.num_envs, not self.random_left)), np.bool_)
        self._tracker.scores[:] = state["scores"]
        self._tracker.lengths[:] = state["lengths"]

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def _begin(self, observation: dict[str, Array], infos: Mapping[str, Any]) -> None:
        """Take first observations of all environments as the row that is next."""
        self._obs = observation
        self._reward = np.zeros(self.num_envs, np.float32)
        self._is_first = np.ones(self.num_envs, np.bool_)
        self._is_last = np.zeros(self.num_envs, np.bool_)
        self._is_terminal = np.zeros(self.num_envs, np.bool_)
        for fault in infos.get("faults", {}).values():
            self._count(fault)

    def _restart_streams(self) -> None:
        self._generation += 1
        self.streams = self.streams % GENERATION + self._generation * GENERATION
        self._state = self.policy.initial_state(self.num_envs)
        seeds = np.random.SeedSequence([self._seed, self._generation]).generate_state(self.num_envs)
        batch, infos = self.env.reset(seed=[int(seed) for seed in seeds])  # type: ignore[arg-type]  # Gymnasium's own
        self._begin(self._flatten(batch), infos)

    def _allocate(self, steps: int) -> dict[str, Array]:
        lead = (self.num_envs, steps)
        rows: dict[str, Array] = {
            leaf.key: np.empty((*lead, *(leaf.flat.shape or ())), leaf.flat.dtype) for leaf in self.observations.leaves
        }
        rows["reward"] = np.empty(lead, np.float32)
        for flag in FLAGS:
            rows[flag] = np.empty(lead, np.bool_)
        for key, zeros in self.actions.zeros(0).items():
            rows[key] = np.empty((*lead, *zeros.shape[1:]), zeros.dtype)
        for key, field in self.policy.latent_fields.items():
            rows[f"latent/{key}"] = np.zeros((*lead, *field.shape), field.dtype)
        if self.policy.latent_fields:
            rows[LATENT_VALID] = np.empty(lead, np.bool_)
        return rows

    def _advance(self, rows: dict[str, Array], t: int) -> int:
        """Write row ``t``, act, and step; returns how many environments executed an action."""
        for key, values in self._obs.items():
            rows[key][:, t] = values
        rows["reward"][:, t] = self._reward
        rows["is_first"][:, t] = self._is_first
        rows["is_last"][:, t] = self._is_last
        rows["is_terminal"][:, t] = self._is_terminal
        if self.random_left > 0:
            chosen = self._random_actions()
            self._followed[:] = False
        else:
            chosen = self._policy_actions(rows, t)
            self._followed |= self._is_first
        if LATENT_VALID in rows:
            # Who has not seen an episode from its beginning knows too little of it to say where it stands.
            rows[LATENT_VALID][:, t] = self._followed
        executed, stored = self.actions.unflatten(chosen)
        ending = self._is_last
        for key, values in stored.items():
            row = rows[key][:, t]
            row[...] = values
            row[ending] = 0
        faults = self._step(executed)
        count = self.num_envs - int(np.count_nonzero(ending))
        for slot in faults:
            if not ending[slot]:
                count -= 1
                rows["is_last"][slot, t] = True
                for key in stored:
                    rows[key][slot, t] = 0
        if self.random_left > 0:
            self.random_left = max(0, self.random_left - count)
        return count

    def _random_actions(self) -> dict[str, Array]:
        masks = {}
        for key in self.actions.space:
            # One of several agents chooses under a mask of its own.
            agent = key.removeprefix("action").lstrip("/")
            mask = self._obs.get(f"agent/{agent}/action_mask" if agent else "action_mask")
            if mask is not None:
                masks[key] = mask
        return self.actions.sample(self._rng, self.num_envs, masks)

    def _policy_actions(self, rows: dict[str, Array], t: int) -> dict[str, Array]:
        obs = {
            key: torch.from_numpy(values).to(self._device)
            for key, values in self._obs.items()
            if not key.startswith(TRAINING_ONLY)
        }
        is_first = torch.from_numpy(self._is_first).to(self._device)
        actions, self._state, latents = self.policy.act(obs, is_first, self._state, self.mode)
        for key, value in latents.items():
            rows[f"latent/{key}"][:, t] = value.cpu().numpy()
        chosen = {key: value.cpu().numpy() for key, value in actions.items()}
        for key, values in chosen.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise PolicyFault(f"the policy (version {self.policy_version}) returned {key!r} with NaN or infinity")
        return chosen

    def _step(self, executed: Any) -> Mapping[int, EnvironmentFault]:
        """Step the environments and make what they return the row that is next; returns who faulted."""
        try:
            batch, rewards, terminated, truncated, infos = self.env.step(executed)
        except EnvironmentBroken:
            raise
        except Exception as error:
            return self._reset_all(error)
        observation = self._flatten(batch)
        faults: Mapping[int, EnvironmentFault] = infos.get("faults") or {}
        if not self._survives:
            observation, faults = self._inspect(observation, rewards)
            self._resets_in_a_row = self._resets_in_a_row if len(faults) == self.num_envs else 0
        first = self._is_last
        ended = terminated | truncated
        self._obs = observation
        self._is_first = first
        self._is_terminal = terminated.copy()
        self._is_last = ended
        self._reward = rewards.astype(np.float32)
        if first.any():
            # The step after an episode's last only resets: whatever reward or flag comes with it means nothing.
            rewards = np.where(first, 0.0, rewards)
            self._reward[first] = 0.0
            self._is_last[first] = False
            self._is_terminal[first] = False
        tracker = self._tracker
        tracker.scores += rewards
        tracker.lengths += ~first
        if faults:
            self._cut(faults, first)
        if self._is_last.any():
            for slot in map(int, np.flatnonzero(self._is_last)):
                lost, terminated = episode_fault(infos, slot), bool(self._is_terminal[slot])
                if lost:
                    self._count(EnvironmentFault("lost", lost))
                episode = tracker.finish(slot, terminated=terminated, faulted=bool(lost), extras=extras(infos, slot))
                self._finished.append(episode)
        return faults

    def _cut(self, faults: Mapping[int, EnvironmentFault], resetting: Flags) -> None:
        """End the episodes of the environments that faulted; the row that is next begins others."""
        self._is_first = self._is_first.copy()
        for slot, fault in faults.items():
            self._count(fault)
            self._is_first[slot] = True
            self._is_last[slot] = self._is_terminal[slot] = False
            if resetting[slot]:
                continue
            self._tracker.lengths[slot] -= 1
            self._finished.append(self._tracker.finish(slot, faulted=True))

    def _inspect(
        self, observation: dict[str, Array], rewards: Array
    ) -> tuple[dict[str, Array], dict[int, EnvironmentFault]]:
        """Look for numbers that are not finite in what a foreign vector environment returned, and reset those."""
        bad = ~np.isfinite(rewards)
        for values in observation.values():
            if values.dtype.kind == "f":
                bad |= ~np.isfinite(values).reshape(self.num_envs, -1).all(axis=1)
        if not bad.any():
            return observation, {}
        rewards[bad] = 0.0
        fault = EnvironmentFault("nan", "the vector environment returned a number that is not finite")
        if bad.all():
            self._count_reset(fault)
        batch, _ = self.env.reset(options={"reset_mask": bad})
        return self._flatten(batch), {int(slot): fault for slot in np.flatnonzero(bad)}

    def _reset_all(self, error: Exception) -> Mapping[int, EnvironmentFault]:
        """Begin again in every environment after a foreign vector environment raised."""
        fault = EnvironmentFault("raised", f"{type(error).__name__}: {error}")
        self._count_reset(fault)
        try:
            batch, _ = self.env.reset()
        except Exception as second:
            raise EnvironmentBroken(
                f"the vector environment raised {type(error).__name__} ({error}) and could not be reset "
                f"({type(second).__name__}); environments made by oneiros.envs.registry.make_vector are rebuilt instead"
            ) from error
        resetting = self._is_last
        self._begin(self._flatten(batch), {})
        self._tracker.lengths += ~resetting
        faults = dict.fromkeys(range(self.num_envs), fault)
        self._cut(faults, resetting)
        return faults

    def _count_reset(self, fault: EnvironmentFault) -> None:
        self._resets_in_a_row += 1
        if self._resets_in_a_row >= MOST_FAULTS:
            raise EnvironmentBroken(
                f"the vector environment faulted {MOST_FAULTS} times in a row without one good step; the last: {fault}"
            ) from fault

    def _flatten(self, batch: Any) -> dict[str, Array]:
        return self.observations.flatten(batch)

    def _count(self, fault: EnvironmentFault) -> None:
        self._faults[fault.kind] += 1
        if fault.kind not in self._logged:
            self._logged.add(fault.kind)
            log.warning("an environment faulted and begins a new episode (further ones are only counted): %s", fault)
