"""The Gymnasium environment: one player in a new world each episode."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from oneiros.envs.contract import EPISODE_FAULT
from oneiros.envs.luanti.actions import Controls
from oneiros.envs.luanti.display import Display
from oneiros.envs.luanti.instance import Instance, InstanceFailed
from oneiros.envs.luanti.items import kinds, milestone_places
from oneiros.envs.luanti.settings import World
from oneiros.envs.minecraft.actions import NAMES
from oneiros.envs.minecraft.observation import Observation, Observer, observation_space
from oneiros.envs.minecraft.progress import LENGTH, Progress

MOST_STARTS = 3

log = logging.getLogger(__name__)


class Survival(gymnasium.Env[Observation, np.int64]):
    """Minecraft-like survival in the Luanti engine, under the protocol of the diamond task (not Minecraft).

    Observations are the protocol's (``oneiros.envs.minecraft.observation``), of the game's own ``N`` kinds of items;
    ``equipped`` ``(N + 1,)`` has its last place for an empty hand.

    An episode terminates when the player dies, or for a task of one milestone when that is reached. Its last info
    holds ``log_milestone_<name>``, 1 for each milestone that was reached in it, and ``world``, its map seed. A game
    that hangs or ends is killed and replaced: the episode is truncated, and its last info has
    ``episode_fault``, what happened.
    """

    def __init__(
        self,
        milestone: str | None,
        world: World,
        worlds: Sequence[int],
        controls: Controls,
        length: int = LENGTH,
        spare: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """``milestone`` None rewards all of them; ``spare`` starts the next episode's world while this one runs."""
        self.world = world
        self.controls = controls
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
        count = len(kinds())
        self.observation_space = observation_space(world.height, world.width, count, count + 1)
        self.action_space = spaces.Discrete(len(NAMES))
        self.failures = 0
        self.instance: Instance | None = None
        self._progress = Progress(milestone)
        self._observer = Observer(count, count + 1)
        self._worlds = worlds
        self._length = length
        self._wants_spare = spare
        self._spare: Instance | None = None
        self._display: Display | None = None
        self._next_world: int | None = None
        self._world_seed = -1
        self._begin()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin in a new world; worlds follow from the last seed that was given, or are ``options["world"]``."""
        super().reset(seed=seed)
        if seed is not None:
            self._next_world = None
        chosen = (options or {}).get("world")
        if chosen is None:
            chosen = self._draw()
            self._next_world = None
        self._end_instance()
        self.instance = self._running(int(chosen))
        self._world_seed = self.instance.seed
        self._begin()
        if self._wants_spare and (options or {}).get("world") is None:
            self._next_world = self._draw()
            self._spare = self._try_start(self._next_world)
        self._observation = self._observe()
        return self._observation, {"world": self.instance.seed}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act for one step, a twentieth of a second of the game."""
        if self.instance is None:
            raise gymnasium.error.ResetNeeded("the episode is over, or none has begun: call reset")
        pressed = self.controls.press(int(action))
        try:
            self.instance.step(pressed.keys, pressed.turn_x, pressed.turn_y, pressed.command)
        except InstanceFailed as error:
            return self._observation, 0.0, False, True, self._lose(error)
        self._steps += 1
        observation = self._observation = self._observe()
        held = observation["inventory"][list(milestone_places())] > 0
        reward = self._progress.pay(held, float(observation["health"][0]))
        terminated = self.instance.memory.value("died") > 0 or self._progress.done
        truncated = not terminated and self._steps >= self._length
        return observation, reward, terminated, truncated, self.summary() if terminated or truncated else {}

    def summary(self) -> dict[str, Any]:
        """What the last info of this episode says, or would if it were over: milestones reached, and the world."""
        return {**self._progress.summary(), "world": self._world_seed}

    def render(self) -> Any:
        """The last picture, with ``render_mode="rgb_array"``."""
        return self._observation["image"] if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the games and the X server."""
        self._end_instance()
        if self._spare is not None:
            self._spare.close()
            self._spare = None
        if self._display is not None:
            self._display.close()
            self._display = None

    def __del__(self) -> None:
        # One that is dropped without being closed would leave its games running as long as this process does.
        with contextlib.suppress(Exception):
            self.close()

    # ---- episodes ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.controls.reset()
        self._steps = 0
        self._progress.reset()
        self._observer.reset()

    def _observe(self) -> Observation:
        assert self.instance is not None
        memory = self.instance.memory
        return self._observer.observe(
            memory.picture(),
            memory.inventory,
            int(memory.value("wielded")),
            memory.value("health") / 20,
            memory.value("hunger") / 20,
            memory.value("breath") / memory.value("breath_max"),
        )

    # ---- games ------------------------------------------------------------------------------------------------------

    def _draw(self) -> int:
        if self._next_world is not None:
            return self._next_world
        return int(self._worlds[int(self.np_random.integers(len(self._worlds)))])

    def _start(self, seed: int) -> Instance:
        if self._display is None or not self._display.alive:
            if self._display is not None:
                self._display.close()
            self._display = Display(self.world.height, self.world.width)
        return Instance(self.world, seed, self._display.name, len(kinds()))

    def _try_start(self, seed: int) -> Instance | None:
        """Start a game that is needed later; what goes wrong shows, and is tried again, when it is needed."""
        try:
            return self._start(seed)
        except (OSError, RuntimeError) as error:
            log.warning("luanti: the next world could not be started yet: %s", error)
            return None

    def _running(self, seed: int) -> Instance:
        """A game at its first picture; one that fails on the way there is replaced, a few times."""
        for attempt in range(1, MOST_STARTS + 1):
            instance, self._spare = self._spare, None
            if instance is not None and instance.seed != seed:
                instance.close()
                instance = None
            if instance is None:
                instance = self._start(seed)
            try:
                instance.wait()
                return instance
            except InstanceFailed as error:
                self._count(error)
                instance.close()
                if attempt == MOST_STARTS:
                    raise
            except BaseException:
                instance.close()
                raise
        raise AssertionError("unreachable")

    def _lose(self, error: InstanceFailed) -> dict[str, Any]:
        self._count(error)
        summary = self.summary()
        self._end_instance()
        return {**summary, EPISODE_FAULT: str(error)}

    def _count(self, error: InstanceFailed) -> None:
        self.failures += 1
        if self.failures == 1:
            log.warning("luanti: a game was replaced (the first time; further ones are only counted): %s", error)

    def _end_instance(self) -> None:
        if self.instance is not None:
            self.instance.close()
            self.instance = None
