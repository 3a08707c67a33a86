"""What a scripted player knows of the land around it, and where it can go by walking, jumping and digging."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Cell = tuple[int, int, int]
AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1))
EYE = 1.625
"""How high the player's eyes are above its feet, in nodes."""
REACH = 4.0
DIG_COST = 4.0
MOST_DROP = 5
"""Nodes that the player falls without being hurt, and more."""
TURNS = 24
TILTS = range(-4, 5)


@dataclass(frozen=True)
class Terrain:
    """A box of nodes, one letter each: as the game's ``oracle.lua`` has them."""

    corner: Cell
    side: Cell
    letters: str
    diggable: str
    """Letters of what the player's tools break."""

    def at(self, cell: Cell) -> str:
        """The letter of a node; ``?`` outside of the box."""
        x, y, z = (cell[axis] - self.corner[axis] for axis in range(3))
        if not (0 <= x < self.side[0] and 0 <= y < self.side[1] and 0 <= z < self.side[2]):
            return "?"
        return self.letters[x + self.side[0] * (y + self.side[1] * z)]

    def open(self, cell: Cell) -> bool:
        """Whether the player can be there."""
        return self.at(cell) in ".,"

    def solid(self, cell: Cell) -> bool:
        """Whether the player can stand on it."""
        return self.at(cell) not in ".,~!?"

    def clearing(self, cell: Cell) -> float:
        """What it costs to have this cell free; infinite where it cannot be, or where something would pour out."""
        letter = self.at(cell)
        if letter in ".,":
            return 0.0
        if letter not in self.diggable or any(self.at(near) in "~!" for near in _neighbours(cell)):
            return math.inf
        above = (cell[0], cell[1] + 1, cell[2])
        return DIG_COST * (3 if self.at(above) == "f" or letter == "f" else 1)

    def moves(self, feet: Cell) -> Iterator[tuple[Cell, float]]:
        """Where one move leads, and its cost."""
        x, y, z = feet
        for dx, dz in AROUND:
            ahead = (x + dx, y, z + dz)
            if any(self.at((ahead[0], ahead[1] + rise, ahead[2])) in "~!" for rise in (-2, -1, 0, 1, 2)):
                continue
            level = self.clearing(ahead) + self.clearing(_up(ahead, 1))
            if self.solid(_up(ahead, -1)):
                yield ahead, 1 + level
            if self.solid(ahead):
                yield (
                    _up(ahead, 1),
                    2 + self.clearing(_up(feet, 2)) + self.clearing(_up(ahead, 1)) + self.clearing(_up(ahead, 2)),
                )
            floor = level + self.clearing(_up(ahead, -1))
            if self.solid(_up(ahead, -2)):
                yield _up(ahead, -1), 1.5 + floor
            for drop in range(2, MOST_DROP + 1):
                if not self.open(_up(ahead, 1 - drop)) or not self.open(_up(ahead, -drop)):
                    break
                if self.solid(_up(ahead, -drop - 1)):
                    yield _up(ahead, -drop), 1.5 + drop + level
                    break

    def route(
        self, start: Cell, arrived: Callable[[Cell], bool], towards: Cell, most: int = 12_000
    ) -> tuple[list[Cell], bool]:
        """The cheapest way to a cell where ``arrived``, or else to the nearest to ``towards``; and which it is."""
        came: dict[Cell, Cell | None] = {start: None}
        costs = {start: 0.0}
        queue = [(self._guess(start, towards), 0.0, start)]
        nearest, distance, seen = start, self._guess(start, towards), 0
        done = set()
        while queue and seen < most:
            _, cost, feet = heapq.heappop(queue)
            if feet in done:
                continue
            done.add(feet)
            seen += 1
            if arrived(feet):
                return _back(came, feet), True
            if self._guess(feet, towards) < distance:
                nearest, distance = feet, self._guess(feet, towards)
            for after, price in self.moves(feet):
                total = cost + price
                if total < costs.get(after, math.inf):
                    costs[after] = total
                    came[after] = feet
                    heapq.heappush(queue, (total + self._guess(after, towards), total, after))
        return _back(came, nearest), False

    def first_hit(self, eye: tuple[float, float, float], direction: tuple[float, float, float]) -> Cell | None:
        """The first node that a ray from the eyes meets within reach."""
        steps = 80
        for index in range(1, steps + 1):
            far = REACH * index / steps
            cell = tuple(math.floor(eye[axis] + far * direction[axis] + 0.5) for axis in range(3))
            if self.at(cell) not in ".~!":  # type: ignore[arg-type]
                return cell  # type: ignore[return-value]
        return None

    @staticmethod
    def _guess(cell: Cell, towards: Cell) -> float:
        return sum(abs(cell[axis] - towards[axis]) for axis in range(3)) * 1.5


def direction(turn: int, tilt: int) -> tuple[float, float, float]:
    """Where the eyes look after ``turn`` turns to the left from north, and ``tilt`` downwards, 15 degrees each."""
    yaw, pitch = math.radians(15 * turn), math.radians(15 * tilt)
    return -math.sin(yaw) * math.cos(pitch), -math.sin(pitch), math.cos(yaw) * math.cos(pitch)


def within_reach(target: Cell) -> Callable[[Cell], bool]:
    """Whether feet in a cell are where this node can be broken from."""

    def arrived(feet: Cell) -> bool:
        aside = abs(feet[0] - target[0]) + abs(feet[2] - target[2])
        rise = target[1] - feet[1]
        return (aside == 1 and -1 <= rise <= 3) or (aside == 0 and rise == 2)

    return arrived


def _up(cell: Cell, rise: int) -> Cell:
    return cell[0], cell[1] + rise, cell[2]


def _neighbours(cell: Cell) -> Iterator[Cell]:
    x, y, z = cell
    yield from ((x + 1, y, z), (x - 1, y, z), (x, y, z + 1), (x, y, z - 1), (x, y + 1, z))


def _back(came: dict[Cell, Cell | None], last: Cell) -> list[Cell]:
    way: list[Cell] = []
    here: Cell | None = last
    while here is not None:
        way.append(here)
        here = came[here]
    return way[::-1]
