"""A player that follows a plan: it asks the oracle where things are, and does everything with the 25 actions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from oneiros.envs.luanti.environment import Survival
from oneiros.envs.luanti.items import kinds
from oneiros.envs.luanti.terrain import EYE, TILTS, TURNS, Cell, Terrain, direction, within_reach
from oneiros.envs.minecraft.actions import NAMES
from oneiros.envs.minecraft.progress import MILESTONES

BOX = 16
LOGS = ["default:tree", "default:jungletree", "default:pine_tree", "default:acacia_tree", "default:aspen_tree"]
STONES = ["default:stone", "default:desert_stone", "default:cobble", "default:desert_cobble"]
ACTION = {name: index for index, name in enumerate(NAMES)}
Seen = Callable[[int, tuple[Any, float, bool, bool, dict[str, Any]]], None]


class PlayEnded(Exception):
    """The episode is over, or the player has used up its steps."""


class Stuck(Exception):
    """The player cannot get what it wants from where it is."""


class Player:
    """Plays one episode of an environment that was made with ``oracle=True`` and has been reset.

    ``seen`` is called with every action and what the environment returned for it.
    """

    def __init__(self, env: Survival, observation: Any, most_steps: int = 20_000, seen: Seen | None = None) -> None:
        self.env = env
        self.steps = 0
        self.milestones: dict[str, int] = {}
        """The step at which each milestone was reached."""
        self.ending = ""
        """Why the player stopped before it had all it wanted; empty where it did not."""
        self._observation = observation
        self._most_steps = most_steps
        self._seen = seen
        self._pickaxe = ""

    # ---- the plan ---------------------------------------------------------------------------------------------------

    def play(self, until: str = "diamond") -> dict[str, int]:
        """Go for the milestones in order, up to and with ``until``; which were reached, and at which step."""
        plan = (
            (("log", "planks", "stick", "crafting_table", "wooden_pickaxe"), self._wood),
            (("cobblestone", "stone_pickaxe", "furnace"), self._stone),
            (("iron_ore", "iron_ingot", "iron_pickaxe"), self._iron),
            (("diamond",), self._diamond),
        )
        try:
            self.do("noop", 5)
            for reached, part in plan:
                part()
                if until in reached:
                    break
        except (PlayEnded, Stuck) as reason:
            self.ending = str(reason)
        return self.milestones

    def _wood(self) -> None:
        self.gather("log", LOGS, 9)
        while self.count("log") > 2:
            self.do("craft_planks")
        self.craft("stick", 8)
        self.craft("crafting_table", 1)
        self.put("crafting_table")
        self.craft("wooden_pickaxe", 1)
        self.equip("wooden_pickaxe")

    def _stone(self) -> None:
        self.gather("cobblestone", STONES, 12)
        self._near("crafting_table")
        self.craft("stone_pickaxe", 1)
        self.equip("stone_pickaxe")
        self.craft("furnace", 1)

    def _iron(self) -> None:
        self.gather("iron_ore", ["default:stone_with_iron"], 3, depth=-20)
        self._near("crafting_table")
        self.put("furnace")
        for _ in range(3):
            self.do("smelt_iron_ingot")
        self.craft("iron_pickaxe", 1)
        self.equip("iron_pickaxe")

    def _diamond(self) -> None:
        self.gather("diamond", ["default:stone_with_diamond"], 1, depth=-44)

    def _near(self, kind: str) -> None:
        """Have a crafting table within reach: the old one where it is, or a new one."""
        if self.find([f"oneiros:{kind}"], 3):
            return
        if not self.count(kind):
            while self.count("planks") < 4 and self.count("log"):
                self.do("craft_planks")
            self.craft(kind, 1)
        self.put(kind)

    # ---- skills -----------------------------------------------------------------------------------------------------

    def craft(self, kind: str, wanted: int) -> None:
        """Make items until there are so many; raises ``Stuck`` where something is missing."""
        while self.count(kind) < wanted:
            before = self.count(kind)
            self.do(f"craft_{kind}")
            if self.count(kind) == before:
                raise Stuck(f"cannot make {kind}")

    def equip(self, kind: str) -> None:
        """Take a pickaxe in the hand."""
        self.do(f"equip_{kind}")
        self._pickaxe = kind

    def put(self, kind: str) -> None:
        """Place an item within reach: on the ground ahead, or where there is room for it."""
        before = self.count(kind)
        for attempt in range(TURNS):
            for tilt in (3, 2, 4, 1):
                self.look(self.turn, tilt)
                self.do(f"place_{kind}")
                if self.count(kind) < before:
                    return
            if attempt % 4 == 3:
                # Walls all around: make room.
                self.look(self.turn, 3)
                self.do("attack", 3)
            self.do("turn_left", 3)
        raise Stuck(f"nowhere to place {kind}")

    def gather(self, kind: str, names: list[str], wanted: int, depth: int | None = None) -> None:
        """Break nodes of these names until there are so many; ``depth`` is where to go down to where none is known."""
        hopeless: set[Cell] = set()
        failures = 0
        while self.count(kind) < wanted:
            known = [place for place in self.find(names, 40) if place not in hopeless]
            if not known:
                if failures > 30:
                    raise Stuck(f"no {kind}")
                failures += 1
                self._explore(depth, failures)
                hopeless.clear()
                continue
            target = known[0]
            before = self.count(kind)
            if not self.go(within_reach(target), target) or not self.dig(target):
                hopeless.add(target)
                failures += 1
            self.do("noop", 2)
            if self.count(kind) == before:
                hopeless.add(target)

    def _explore(self, depth: int | None, attempt: int) -> None:
        x, y, z = self.feet
        if depth is not None and y > depth + 3:
            self.go(lambda feet: feet[1] <= y - 12, (x, max(depth, y - 14), z))
            return
        dx, dz = ((1, 0), (0, 1), (-1, 0), (0, -1))[(attempt // 3) % 4]
        self.go(lambda feet: False, (x + 14 * dx, y, z + 14 * dz))

    def go(self, arrived: Callable[[Cell], bool], towards: Cell) -> bool:
        """Walk and dig to a cell where ``arrived``; whether the player got there."""
        for _ in range(12):
            start = self.feet
            if arrived(start):
                return True
            way, complete = self.terrain().route(start, arrived, towards)
            for index, cell in enumerate(way[1:], 1):
                if not self._move(way[index - 1], cell):
                    break
            if arrived(self.feet):
                return True
            if self.feet == start and not complete:
                return False
        return False

    def _move(self, here: Cell, there: Cell) -> bool:
        """One move of a route."""
        x, _, z = there
        rise = there[1] - here[1]
        low, high = min(here[1], there[1]), max(here[1], there[1])
        needed = [(x, y, z) for y in range(high + 1, there[1] - 1, -1)]
        if rise > 0:
            needed.insert(0, (here[0], here[1] + 2, here[2]))
            needed = [cell for cell in needed if cell != (x, low, z)]
        terrain = self.terrain(7)
        for cell in needed:
            for _ in range(6):  # sand and gravel fall in from above
                if terrain.open(cell):
                    break
                if not self.dig(cell):
                    return False
                terrain = self.terrain(7)
        if not terrain.solid((x, there[1] - 1, z)) or any(
            terrain.at((x, y, z)) in "~!" for y in range(there[1] - 1, high + 2)
        ):
            return False
        return self._walk(there, jump=rise > 0)

    def _walk(self, there: Cell, jump: bool) -> bool:
        turn = self._turn_towards(there[0] - self.feet[0], there[2] - self.feet[2])
        self.look(turn, self.tilt)
        for _ in range(36):
            x, y, z = self.position
            dx, dz = there[0] - x, there[2] - z
            ahead = direction(turn, 0)
            forward, aside = dx * ahead[0] + dz * ahead[2], -dx * ahead[2] + dz * ahead[0]
            if abs(forward) < 0.2 and abs(aside) < 0.2 and abs(y + 0.5 - there[1]) < 0.2:
                self.do("noop")
                return True
            if jump and y + 0.5 < there[1] - 0.1:
                self.do("jump")
            elif abs(aside) > 0.18 and abs(aside) > abs(forward) - 0.5:
                self.do("left" if aside > 0 else "right")
            elif forward > 0.12:
                self.do("forward")
            elif forward < -0.12:
                self.do("back")
            else:
                self.do("noop")
        return self.feet == there

    def dig(self, target: Cell) -> bool:
        """Break one node from where the player stands; whether it is gone."""
        tried: set[tuple[int, int]] = set()
        for _ in range(16):
            terrain = self.terrain(5)
            if terrain.at(target) in ".~!":
                return True
            ray = self._ray(terrain, target, tried)
            if ray is None:
                return False
            tried.add(ray)
            self.look(*ray)
            for _ in range(5):
                self.do("attack")
                self.do("noop")
                if self.terrain(5).at(target) in ".~!":
                    return True
        return False

    def _ray(self, terrain: Terrain, target: Cell, tried: set[tuple[int, int]]) -> tuple[int, int] | None:
        x, y, z = self.position
        best: tuple[float, tuple[int, int]] | None = None
        blocked: tuple[float, tuple[int, int]] | None = None
        for turn in range(TURNS):
            turns = min((turn - self.turn) % TURNS, (self.turn - turn) % TURNS)
            for tilt in TILTS:
                if (turn, tilt) in tried:
                    continue
                hit = terrain.first_hit((x, y + EYE, z), direction(turn, tilt))
                cost = turns + abs(tilt - self.tilt)
                if hit == target and (best is None or cost < best[0]):
                    best = cost, (turn, tilt)
                elif (
                    hit is not None
                    and terrain.at(hit) in terrain.diggable + ","
                    and _beside(hit, target)
                    and (blocked is None or cost < blocked[0])
                ):
                    blocked = cost, (turn, tilt)
        found = best or blocked
        return found[1] if found else None

    def look(self, turn: int, tilt: int) -> None:
        """Turn the camera."""
        left = (turn - self.turn) % TURNS
        if left <= TURNS // 2:
            self.do("turn_left", left)
        else:
            self.do("turn_right", TURNS - left)
        for _ in range(16):
            if self.tilt == tilt:
                break
            self.do("turn_down" if tilt > self.tilt else "turn_up")

    def do(self, name: str, times: int = 1) -> None:
        """One of the 25 actions, some times."""
        for _ in range(times):
            if self.steps >= self._most_steps:
                raise PlayEnded("out of steps")
            outcome = self.env.step(ACTION[name])  # type: ignore[arg-type]
            self.steps += 1
            self._observation = outcome[0]
            for milestone in MILESTONES:
                if milestone not in self.milestones and self.count(milestone):
                    self.milestones[milestone] = self.steps
            if self._seen is not None:
                self._seen(ACTION[name], outcome)
            if outcome[2] or outcome[3]:
                raise PlayEnded("the episode is over")

    # ---- what the player knows --------------------------------------------------------------------------------------

    def count(self, kind: str) -> int:
        """How many items of a kind it holds."""
        return int(self._observation["inventory"][kinds().index(kind)])

    @property
    def position(self) -> tuple[float, float, float]:
        """Where its feet are."""
        value = self._memory.value
        return value("x"), value("y"), value("z")

    @property
    def feet(self) -> Cell:
        """The cell that its feet are in."""
        x, y, z = self.position
        return math.floor(x + 0.5), math.floor(y + 0.9), math.floor(z + 0.5)

    @property
    def turn(self) -> int:
        """How far it is turned to the left from north, in turns."""
        return round(math.degrees(self._memory.value("yaw")) / 15) % TURNS

    @property
    def tilt(self) -> int:
        """How far it looks down, in turns."""
        return self.env.controls.tilt

    @property
    def _memory(self) -> Any:
        assert self.env.instance is not None
        return self.env.instance.memory

    def _ask(self, question: str, **details: Any) -> Any:
        assert self.env.instance is not None
        instance = self.env.instance
        instance.ask(question, **details)
        self.do("noop")
        return instance.answer()

    def find(self, names: list[str], radius: int) -> list[Cell]:
        """Where nodes of these names are, the nearest first."""
        found = self._ask("find", names=names, radius=radius, most=24)
        return [(int(x), int(y), int(z)) for x, y, z in found or []]

    def terrain(self, radius: int = BOX) -> Terrain:
        """The land around it."""
        x, y, z = self.feet
        low, high = (x - radius, y - radius, z - radius), (x + radius, y + radius, z + radius)
        tools = {"": "h", "wooden_pickaxe": "hw", "stone_pickaxe": "hws", "iron_pickaxe": "hwsi"}[self._pickaxe]
        letters = self._ask("terrain", **{"from": low, "to": high})
        return Terrain(low, (2 * radius + 1,) * 3, letters, tools + "f")

    @staticmethod
    def _turn_towards(dx: int, dz: int) -> int:
        return {(0, 1): 0, (-1, 0): 6, (0, -1): 12, (1, 0): 18}.get((dx, dz), 0)


def _beside(hit: Cell, target: Cell) -> bool:
    return sum(abs(hit[axis] - target[axis]) for axis in range(3)) <= 2
