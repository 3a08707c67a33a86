"""Minecraft-like survival in the real Luanti engine (not Minecraft): ``luanti/diamond``, and tasks of one milestone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oneiros.envs import options as generic
from oneiros.envs.contract import InvalidOption, UnknownEnvironment
from oneiros.envs.luanti import worlds as sets
from oneiros.envs.luanti.actions import Controls
from oneiros.envs.luanti.environment import Survival
from oneiros.envs.luanti.installation import REQUIREMENT
from oneiros.envs.luanti.settings import World
from oneiros.envs.minecraft import options as shared
from oneiros.envs.minecraft.progress import MILESTONES
from oneiros.envs.options import AnyEnv

OPTIONS = (*shared.OPTIONS, "view", "worlds", "spare", "oracle", "render_mode")


class LuantiSuite:
    """``diamond`` rewards each of twelve milestones once; a task of a milestone's name rewards and ends with it."""

    name = "luanti"
    description = "Minecraft-like survival (Luanti): from wood to a diamond, in new worlds, from images"
    requirement = REQUIREMENT
    handles = frozenset({"action_repeat", "size", "time_limit"})

    def tasks(self) -> Sequence[str]:
        """All milestones in one episode first, then each alone."""
        return ["diamond", *(name for name in MILESTONES if name != "diamond"), "only_diamond"]

    def make(
        self,
        task: str,
        *,
        size: Any = (64, 64),
        action_repeat: int | None = None,
        time_limit: int | None = None,
        break_speed: float = 100.0,
        sticky_attack: int | None = None,
        sticky_jump: int = 10,
        pitch_limit: float = 60.0,
        view: int = 24,
        worlds: Any = "train",
        spare: bool = True,
        oracle: bool = False,
        render_mode: str | None = None,
        **unknown: Any,
    ) -> AnyEnv:
        """Build the world.

        ``break_speed`` multiplies how fast things break; attacks repeat ``sticky_attack`` steps (30 at normal speed,
        else 0) and jumps ``sticky_jump``; ``pitch_limit`` is in degrees, ``view`` in nodes; ``worlds`` is ``train``,
        ``held-out`` or a list of map seeds; ``spare`` keeps the next episode's world ready (256 MB);
        ``oracle`` lets scripted players ask where things are; ``time_limit`` replaces 36,000 steps.
        """
        if task not in self.tasks():
            raise UnknownEnvironment()
        if unknown:
            choices = ", ".join([*OPTIONS, *generic.GENERIC])
            raise InvalidOption(f"luanti/{task} takes no option {min(unknown)!r}: there are {choices}")
        read = shared.read(
            f"luanti/{task}",
            75,
            size=size,
            action_repeat=action_repeat,
            time_limit=time_limit,
            break_speed=break_speed,
            sticky_attack=sticky_attack,
            sticky_jump=sticky_jump,
            pitch_limit=pitch_limit,
        )
        view = int(generic.number("view", view, 16, 200))
        world = World(read.height, read.width, read.break_speed, view, bool(oracle))
        controls = Controls(read.sticky_attack, read.sticky_jump, read.pitch_limit)
        milestone = None if task == "diamond" else task.removeprefix("only_")
        env: AnyEnv = Survival(milestone, world, sets.choose(worlds), controls, read.length, spare, render_mode)
        return generic.apply(env, f"luanti/{task}", {"action_repeat": action_repeat})


SUITE = LuantiSuite()
