"""The options that any environment takes, whatever its suite.

They are applied in this order, innermost first: ``action_repeat``, ``size`` and ``grayscale``, ``info_mask``,
``time_limit``, ``seed``. A suite that gives one of them a meaning of its own says so in ``handles``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray
from oneiros.envs.contract import InvalidOption
from oneiros.envs.spaces import AnySpace, is_image
from PIL import Image

AnyEnv = gymnasium.Env[Any, Any]
Step = tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]

GENERIC: Mapping[str, str] = {
    "action_repeat": "how many times the environment executes each action; the rewards are summed",
    "size": "side, or [height, width], in pixels to which every image observation is scaled",
    "grayscale": "whether image observations lose their colour: (H, W, 3) becomes (H, W, 1)",
    "info_mask": "whether the action_mask that the environment gives in its info joins its observation",
    "time_limit": "policy steps after which an episode is truncated; replaces the limit a Gymnasium id comes with",
    "seed": "seed of the first reset that is given none",
}


def apply(env: AnyEnv, env_id: str, options: Mapping[str, Any]) -> AnyEnv:
    """Wrap ``env`` as the generic ``options`` say; raises ``InvalidOption`` naming ``env_id``."""
    repeat = count("action_repeat", options.get("action_repeat"))
    if repeat is not None and repeat > 1:
        env = ActionRepeat(env, repeat)
    size = frame_size(options.get("size"))
    if size is not None or options.get("grayscale"):
        env = Frame(env, env_id, size, bool(options.get("grayscale")))
    if options.get("info_mask"):
        env = InfoMask(env, env_id)
    limit = count("time_limit", options.get("time_limit"))
    if limit is not None:
        env = TimeLimit(env, limit)
    seed = options.get("seed")
    if seed is not None:
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise InvalidOption(f"the option seed is a number from 0 on, not {seed!r}")
        env = Seeded(env, int(seed))
    return env


def frame_size(value: Any) -> tuple[int, int] | None:
    """The option ``size`` as ``(height, width)``; raises ``InvalidOption``."""
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int | np.integer) else value
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        raise InvalidOption(f"the option size is a side in pixels, or [height, width], not {value!r}")
    height, width = sides
    if not all(isinstance(side, int | np.integer) and side > 0 for side in (height, width)):
        raise InvalidOption(f"the option size is a side in pixels, or [height, width], not {value!r}")
    return int(height), int(width)


def count(name: str, value: Any) -> int | None:
    """The option ``name`` as a number from 1 on; raises ``InvalidOption``."""
    if value is None:
        return None
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise InvalidOption(f"the option {name} is a whole number from 1 on, not {value!r}")
    return int(value)


def number(name: str, value: Any, least: float, most: float) -> float:
    """The option ``name`` as a number within its bounds; raises ``InvalidOption``."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidOption(f"the option {name} is a number from {least:g} to {most:g}, not {value!r}")
    return float(value)


class ActionRepeat(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Executes each action several times, sums the rewards, and stops early where the episode ends."""

    def __init__(self, env: AnyEnv, repeat: int) -> None:
        super().__init__(env)
        self.repeat = repeat

    def step(self, action: Any) -> Step:
        """Returns the last observation and info, and the sum of the rewards."""
        total = 0.0
        for _ in range(self.repeat):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class Frame(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Scales every image of the observation, by area averaging when it shrinks, and may take its colour away."""

    def __init__(self, env: AnyEnv, env_id: str, size: tuple[int, int] | None, grayscale: bool) -> None:
        super().__init__(env)
        self.size = size
        self.grayscale = grayscale
        self._found = False
        self.observation_space = self._space(env.observation_space)
        if not self._found:
            raise InvalidOption(f"{env_id} has no image observation, so size and grayscale do not apply to it")

    def _space(self, space: AnySpace) -> AnySpace:
        if isinstance(space, spaces.Dict):
            return spaces.Dict({key: self._space(sub) for key, sub in space.spaces.items()})
        if not is_image(space):
            return space
        self._found = True
        height, width, channels = space.shape or ()
        height, width = self.size or (height, width)
        return spaces.Box(0, 255, (height, width, 1 if self.grayscale else channels), np.uint8)

    def observation(self, observation: Any) -> Any:
        """Every image of the observation in its new form."""
        return self._convert(self.env.observation_space, observation)

    def _convert(self, space: AnySpace, value: Any) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._convert(sub, value[key]) for key, sub in space.spaces.items()}
        return convert_image(np.asarray(value), self.size, self.grayscale) if is_image(space) else value


def convert_image(image: NDArray[np.uint8], size: tuple[int, int] | None, grayscale: bool = False) -> NDArray[np.uint8]:
    """An image ``(H, W, C)`` of bytes scaled to ``size``, by luminance in one channel if ``grayscale``."""
    if grayscale and image.shape[2] == 3:
        image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    if size is None or image.shape[:2] == size:
        return image
    method = Image.Resampling.BOX if size[0] < image.shape[0] else Image.Resampling.BILINEAR
    if image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(size[::-1], method))
    channels = [Image.fromarray(image[..., index]).resize(size[::-1], method) for index in range(image.shape[2])]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


class InfoMask(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Takes ``action_mask`` from the info, where Gymnasium's toy texts keep it, into the observation.

    The observation becomes a Dict with the entries ``action_mask`` and, where it was no Dict before, ``obs``.
    """

    def __init__(self, env: AnyEnv, env_id: str) -> None:
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Discrete):
            raise InvalidOption(f"{env_id} has no Discrete action space, so info_mask does not apply to it")
        inner = env.observation_space
        self._bare = not isinstance(inner, spaces.Dict)
        entries = dict(inner.spaces) if isinstance(inner, spaces.Dict) else {"obs": inner}
        self.observation_space = spaces.Dict({**entries, "action_mask": spaces.MultiBinary(int(env.action_space.n))})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's own reset."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(observation, info), info

    def step(self, action: Any) -> Step:
        """As the environment's own step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(observation, info), reward, terminated, truncated, info

    def _with_mask(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        if "action_mask" not in info:
            raise KeyError("with the option info_mask, each info has an entry 'action_mask'; this one has none")
        entries = {"obs": observation} if self._bare else observation
        return {**entries, "action_mask": np.asarray(info["action_mask"], np.int8)}


class Seeded(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives the first reset a seed if the caller gives none; what follows is then determined."""

    def __init__(self, env: AnyEnv, seed: int) -> None:
        super().__init__(env)
        self._seed: int | None = seed

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's own reset."""
        seed, self._seed = self._seed if seed is None else seed, None
        return self.env.reset(seed=seed, options=options)
