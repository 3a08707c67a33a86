"""Small tasks from images, which a small convolutional network learns in minutes on two cores: ``pixel/catch``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs.contract import NOTHING, InvalidOption, UnknownEnvironment
from oneiros.envs.options import GENERIC, AnyEnv
from oneiros.envs.snapshot import rng_state, set_rng_state

Image = NDArray[np.uint8]
BALL = (255, 220, 0)
PADDLE = (0, 160, 255)
GROUND = (20, 20, 20)


class Catch(gymnasium.Env[Image, np.int64]):
    """Balls fall from the top, one after another; a paddle at the bottom catches them.

    The field is ``cells`` x ``cells``; each cell is a square of ``side / cells`` pixels of the image ``(side, side,
    3)``. Actions: left, stay, right, one cell a step. A ball starts in a column drawn uniformly, in the top row, and
    falls one row a step; ``cells - 1`` steps later it lies in the paddle's row: reward 1 if the paddle is there, -1 if
    not. The paddle stays where it is, the next ball starts at once, and after ``balls`` balls the episode terminates.

    Mean return: ``balls`` at best, always reached: no ball is more than ``cells - 1`` columns away. The random policy's
    is close to ``balls * (2 / cells - 1)``: the ball's column is uniform and independent of the paddle's, so each ball
    is caught with a probability of exactly ``1 / cells``. At the defaults (8 cells, 8 balls): 8 and -6.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, side: int = 32, cells: int = 8, balls: int = 8, render_mode: str | None = None) -> None:
        self.side, self.cells, self.balls, self.render_mode = side, cells, balls, render_mode
        self.observation_space = spaces.Box(0, 255, (side, side, 3), np.uint8)
        self.action_space = spaces.Discrete(3)
        self.paddle = 0
        self.column = 0
        self.row = 0
        self.caught = 0
        self.left = balls

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Image, dict[str, Any]]:
        """Put the paddle anywhere and drop the first ball."""
        super().reset(seed=seed)
        self.paddle = int(self.np_random.integers(self.cells))
        self.caught, self.left = 0, self.balls
        self._drop()
        return self._draw(), {}

    def step(self, action: np.int64) -> tuple[Image, SupportsFloat, bool, bool, dict[str, Any]]:
        """Move the paddle, then let the ball fall by a row."""
        self.paddle = min(self.cells - 1, max(0, self.paddle + int(action) - 1))
        self.row += 1
        if self.row < self.cells - 1:
            return self._draw(), 0.0, False, False, {}
        caught = self.column == self.paddle
        self.caught += caught
        self.left -= 1
        if self.left:
            self._drop()
        return self._draw(), 1.0 if caught else -1.0, self.left == 0, False, {"log_caught": self.caught}

    def get_state(self) -> Mapping[str, Any]:
        """Where everything is, and the random generator."""
        names = ("paddle", "column", "row", "caught", "left")
        return {**{name: int(getattr(self, name)) for name in names}, "rng": rng_state(self)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_state`` returned."""
        for name in ("paddle", "column", "row", "caught", "left"):
            setattr(self, name, int(state[name]))
        set_rng_state(self, state["rng"])

    def render(self) -> Any:
        """The observation itself, with ``render_mode="rgb_array"``."""
        return self._draw() if self.render_mode == "rgb_array" else None

    def _drop(self) -> None:
        self.column, self.row = int(self.np_random.integers(self.cells)), 0

    def _draw(self) -> Image:
        field = np.empty((self.cells, self.cells, 3), np.uint8)
        field[:] = GROUND
        field[self.cells - 1, self.paddle] = PADDLE
        field[self.row, self.column] = BALL
        scale = self.side // self.cells
        return field.repeat(scale, axis=0).repeat(scale, axis=1)


class PixelSuite:
    """Tasks whose best and random returns are known exactly."""

    name = "pixel"
    description = "small tasks from images, learnt in minutes on two cores"
    requirement = NOTHING
    handles = frozenset({"size"})

    def tasks(self) -> Sequence[str]:
        """All of them."""
        return ["catch"]

    def make(
        self,
        task: str,
        *,
        size: Any = 32,
        cells: int = 8,
        balls: int = 8,
        render_mode: str | None = None,
        **unknown: Any,
    ) -> AnyEnv:
        """Build one task; ``size`` is the image's side, a multiple of ``cells``."""
        if task != "catch":
            raise UnknownEnvironment()
        if unknown:
            choices = ", ".join(["cells", "balls", "render_mode", *GENERIC])
            raise InvalidOption(f"pixel/catch takes no option {min(unknown)!r}: there are {choices}")
        if not isinstance(size, int) or cells < 2 or size < cells or size % cells:
            raise InvalidOption(f"pixel/catch draws squares: size is a multiple of cells ({cells}), not {size!r}")
        if balls < 1:
            raise InvalidOption(f"pixel/catch drops at least 1 ball, not {balls}")
        return Catch(size, cells, balls, render_mode)


SUITE = PixelSuite()
