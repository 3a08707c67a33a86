"""DeepMind Control, from state or from pixels: ``dmc/walker_walk``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from ctypes.util import find_library
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs import options as generic
from oneiros.envs.contract import InvalidOption, MissingDependency, Requirement, UnknownEnvironment
from oneiros.envs.options import AnyEnv

DOMAINS: Mapping[str, tuple[str, ...]] = {
    "acrobot": (
        "swingup",
        "swingup_sparse",
    ),
    "ball_in_cup": ("catch",),
    "cartpole": (
        "balance",
        "balance_sparse",
        "swingup",
        "swingup_sparse",
        "two_poles",
        "three_poles",
    ),
    "cheetah": ("run",),
    "dog": (
        "stand",
        "walk",
        "trot",
        "run",
        "fetch",
    ),
    "finger": (
        "spin",
        "turn_easy",
        "turn_hard",
    ),
    "fish": (
        "upright",
        "swim",
    ),
    "hopper": (
        "stand",
        "hop",
    ),
    "humanoid": (
        "stand",
        "walk",
        "run",
        "run_pure_state",
    ),
    "humanoid_CMU": (
        "stand",
        "walk",
        "run",
    ),
    "lqr": (
        "lqr_2_1",
        "lqr_6_2",
    ),
    "manipulator": (
        "bring_ball",
        "bring_peg",
        "insert_ball",
        "insert_peg",
    ),
    "pendulum": ("swingup",),
    "point_mass": (
        "easy",
        "hard",
    ),
    "quadruped": (
        "walk",
        "run",
        "escape",
        "fetch",
    ),
    "reacher": (
        "easy",
        "hard",
    ),
    "stacker": (
        "stack_2",
        "stack_4",
    ),
    "swimmer": (
        "swimmer6",
        "swimmer15",
    ),
    "walker": (
        "stand",
        "walk",
        "run",
    ),
}
"""The suite's own list, so that naming the tasks does not cost importing MuJoCo."""

CAMERAS: Mapping[str, int] = {"quadruped": 2}
"""Cameras that see what matters, where that is not camera 0; as in the DreamerV3 paper's set-up."""

RENDERERS = (("egl", "EGL"), ("osmesa", "OSMesa"))


class ControlSuite:
    """The tasks of ``dm_control.suite``, through Shimmy.

    From state (the default) observations are a Dict of named float32 vectors. ``pixels=True`` gives ``{"image": (H, W,
    3)}`` of bytes, and ``state=True`` both. Episodes of the benchmark's tasks last 1,000 control steps and are then
    truncated, never terminated; ``time_limit`` (in policy steps) replaces that limit.
    """

    name = "dmc"
    description = "DeepMind Control from state or, with pixels=true, from images"
    requirement = Requirement("pip install 'oneiros[dmc]'", ("dm_control", "shimmy"))
    handles = frozenset({"action_repeat", "size", "time_limit"})

    def tasks(self) -> Sequence[str]:
        """``domain_task``, as ``dm_control.suite`` lists them."""
        return [f"{domain}_{name}" for domain, names in DOMAINS.items() for name in names]

    def make(
        self,
        task: str,
        *,
        pixels: bool = False,
        state: bool | None = None,
        camera: int | str | None = None,
        size: Any = (64, 64),
        render_mode: str | None = None,
        action_repeat: int | None = None,
        time_limit: int | None = None,
        **unknown: Any,
    ) -> AnyEnv:
        """Build one task; ``camera`` is one of the model's, by number or name, and ``size`` the image's side."""
        if unknown:
            raise InvalidOption(
                f"dmc/{task} takes no option {min(unknown)!r}: there are pixels, state, camera, render_mode and "
                f"{', '.join(generic.GENERIC)}"
            )
        domain, name = _split(task)
        height, width = generic.frame_size(size) or (64, 64)
        camera = CAMERAS.get(domain, 0) if camera is None else camera
        renders = pixels or render_mode is not None
        choose_renderer(f"dmc/{task}", needed=renders)
        from dm_control import suite  # after the renderer has been chosen
        from shimmy.dm_control_compatibility import DmControlCompatibilityV0

        task_kwargs = None if time_limit is None else {"time_limit": float("inf")}
        base = DmControlCompatibilityV0(
            suite.load(domain, name, task_kwargs=task_kwargs),
            render_mode="rgb_array" if renders else None,
            render_kwargs={"height": height, "width": width, "camera_id": camera},
        )
        env: AnyEnv = ControlTask(base, f"dmc/{task}", pixels, not pixels if state is None else state)
        return generic.apply(env, f"dmc/{task}", {"action_repeat": action_repeat, "time_limit": time_limit})


def _split(task: str) -> tuple[str, str]:
    for domain, names in DOMAINS.items():
        if task.startswith(f"{domain}_") and task.removeprefix(f"{domain}_") in names:
            return domain, task.removeprefix(f"{domain}_")
    raise UnknownEnvironment()


def choose_renderer(who: str, needed: bool) -> None:
    """Set ``MUJOCO_GL``, which MuJoCo's renderer reads when it is imported, on a machine without a display.

    Raises ``MissingDependency`` on behalf of ``who`` if images are ``needed`` and nothing there can draw them.
    """
    if "MUJOCO_GL" not in os.environ and not os.environ.get("DISPLAY"):
        found = [backend for backend, library in RENDERERS if find_library(library)]
        os.environ["MUJOCO_GL"] = found[0] if found else "disabled"
    if needed and os.environ.get("MUJOCO_GL", "").lower() in {"disabled", "disable", "off", "false", "0"}:
        raise MissingDependency(
            f"{who} draws images, and this machine has neither a display nor EGL nor OSMesa: install one "
            "(apt-get install libegl1 libgl1-mesa-dri) and leave MUJOCO_GL unset or set it to egl"
        )


class ControlTask(gymnasium.Env[Any, Any]):
    """One task with float32 observations by name."""

    def __init__(self, env: AnyEnv, env_id: str, pixels: bool, state: bool) -> None:
        if not pixels and not state:
            raise InvalidOption(f"{env_id} with pixels=false and state=false would have nothing to observe")
        self._env: Any = env
        self._pixels = pixels
        self.metadata = dict(env.metadata)
        self.render_mode = env.render_mode
        box = env.action_space
        assert isinstance(box, spaces.Box)
        self.action_space = spaces.Box(box.low.astype(np.float32), box.high.astype(np.float32), dtype=np.float32)
        vectors = env.observation_space
        assert isinstance(vectors, spaces.Dict)
        sizes = {key: int(np.prod(space.shape or ())) for key, space in vectors.spaces.items()}
        self._vectors = [key for key, size in sizes.items() if state and size > 0]
        entries: dict[str, spaces.Space[Any]] = {
            key: spaces.Box(-np.inf, np.inf, (sizes[key],), np.float32) for key in self._vectors
        }
        if pixels:
            entries["image"] = spaces.Box(0, 255, self._draw(env_id).shape, np.uint8)
        self.observation_space = spaces.Dict(entries)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, _ = self._env.reset(seed=seed, options=options)
        return self._observe(observation), {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Advance one control step."""
        observation, reward, terminated, truncated, _ = self._env.step(action)
        return self._observe(observation), reward, terminated, truncated, {}

    def render(self) -> Any:
        """The camera's image, ``(H, W, 3)`` bytes, or None without a ``render_mode``."""
        return self._env.render()

    def close(self) -> None:
        """Free the physics."""
        self._env.close()

    def get_state(self) -> Mapping[str, Any]:
        """The whole physics, the task's random generator and how far the episode is."""
        import mujoco

        control, physics = self._env._env, self._env._env.physics
        values = np.empty(mujoco.mj_stateSize(physics.model.ptr, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(physics.model.ptr, physics.data.ptr, values, mujoco.mjtState.mjSTATE_INTEGRATION)
        name, keys, position, has_gauss, gauss = control.task._random.get_state()
        return {
            "physics": values,
            "random": [name, keys, position, has_gauss, gauss],
            "steps": control._step_count,
            "reset_next": control._reset_next_step,
            "model": {key: np.array(getattr(physics.model, key)) for key in VARIED},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_state`` returned."""
        import mujoco

        control, physics = self._env._env, self._env._env.physics
        for key, value in state["model"].items():
            getattr(physics.model, key)[:] = value
        values = np.asarray(state["physics"])
        mujoco.mj_setState(physics.model.ptr, physics.data.ptr, values, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(physics.model.ptr, physics.data.ptr)
        mujoco.mj_setState(physics.model.ptr, physics.data.ptr, values, mujoco.mjtState.mjSTATE_INTEGRATION)
        control.task._random.set_state(tuple(state["random"]))
        control._step_count = state["steps"]
        control._reset_next_step = state["reset_next"]

    def _observe(self, observation: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        entries: dict[str, NDArray[Any]] = {
            key: np.asarray(observation[key], np.float32).reshape(-1) for key in self._vectors
        }
        if self._pixels:
            entries["image"] = self._env.render()
        return entries

    def _draw(self, env_id: str) -> NDArray[np.uint8]:
        """One image, to learn its shape and whether this machine can draw at all."""
        try:
            self._env.reset()
            image: NDArray[np.uint8] = self._env.render()
        except Exception as error:
            backend = os.environ.get("MUJOCO_GL", "unset")
            raise MissingDependency(
                f"{env_id} cannot draw images with MUJOCO_GL={backend} ({type(error).__name__}: {error}); on a machine "
                "without a display, install EGL (apt-get install libegl1 libgl1-mesa-dri) and set MUJOCO_GL=egl"
            ) from error
        return image


VARIED = (
    *("geom_size", "geom_pos", "geom_rgba", "site_pos", "body_pos", "body_quat", "light_pos"),
    *("wrap_prm", "hfield_data", "jnt_stiffness", "dof_damping"),
)
"""What tasks change in the model itself when an episode begins (target sizes and places)."""

SUITE = ControlSuite()
