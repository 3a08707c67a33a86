"""MineRL 0.4.4, the real Minecraft: ``minerl/diamond`` under the diamond protocol, and its stock tasks by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oneiros.envs import options as generic
from oneiros.envs.contract import InvalidOption, UnknownEnvironment
from oneiros.envs.minecraft import options as shared
from oneiros.envs.minecraft.actions import Controls
from oneiros.envs.minerl.environment import Diamond, Stock
from oneiros.envs.minerl.installation import REQUIREMENT, python
from oneiros.envs.options import AnyEnv

SETTLING = 30
"""Steps in which MineRL does nothing after each reset of a BASALT task, in case the player appeared in a wall."""
BASALT = {
    "FindCave": 3600,
    **dict.fromkeys(("MakeWaterfall", "CreatePlainsAnimalPen", "CreateVillageAnimalPen"), 6000),
    "BuildVillageHouse": 14400,
}
"""What people are to judge: these tasks have no reward, and a snowball that is thrown ends them."""
STOCK = {
    "MineRLTreechop-v0": 8000,
    **dict.fromkeys(("MineRLNavigate-v0", "MineRLNavigateDense-v0"), 6000),
    **dict.fromkeys(("MineRLNavigateExtreme-v0", "MineRLNavigateExtremeDense-v0"), 6000),
    **dict.fromkeys(("MineRLObtainIronPickaxe-v0", "MineRLObtainIronPickaxeDense-v0"), 6000),
    **dict.fromkeys(("MineRLObtainDiamond-v0", "MineRLObtainDiamondDense-v0"), 18000),
    "MineRLTreechopVectorObf-v0": 8000,
    **dict.fromkeys(("MineRLNavigateVectorObf-v0", "MineRLNavigateDenseVectorObf-v0"), 6000),
    **dict.fromkeys(("MineRLNavigateExtremeVectorObf-v0", "MineRLNavigateExtremeDenseVectorObf-v0"), 6000),
    **dict.fromkeys(("MineRLObtainIronPickaxeVectorObf-v0", "MineRLObtainIronPickaxeDenseVectorObf-v0"), 6000),
    **dict.fromkeys(("MineRLObtainDiamondVectorObf-v0", "MineRLObtainDiamondDenseVectorObf-v0"), 18000),
    "MineRLObtainDiamondSurvivalVectorObf-v0": 18000,
    **{
        f"MineRLBasalt{name}{pixels}-v0": length - SETTLING
        for name, length in BASALT.items()
        for pixels in ("", "HighRes")
    },
}
"""MineRL's own tasks, and the steps after which their missions end."""
OPTIONS = (*shared.OPTIONS, "render_mode")


class MineRLSuite:
    """``diamond`` rewards each of twelve milestones once; the others are as MineRL made them."""

    name = "minerl"
    description = "MineRL 0.4.4: Minecraft, from wood to a diamond, and its stock tasks"
    requirement = REQUIREMENT
    handles = frozenset({"action_repeat", "size", "time_limit"})

    def tasks(self) -> Sequence[str]:
        """The protocol first, then MineRL's own ids."""
        return ["diamond", *STOCK]

    def make(
        self,
        task: str,
        *,
        size: Any = None,
        action_repeat: int | None = None,
        time_limit: int | None = None,
        render_mode: str | None = None,
        **own: Any,
    ) -> AnyEnv:
        """Build the world; ``break_speed`` and the controls are the protocol's and of ``diamond`` only.

        ``break_speed`` multiplies how fast things break; attacks repeat ``sticky_attack`` steps (30 at normal speed,
        else 0) and jumps ``sticky_jump``; ``pitch_limit`` is in degrees; ``time_limit`` replaces 36,000 steps.
        """
        if task == "diamond":
            env: AnyEnv = self._diamond(size, action_repeat, time_limit, render_mode, **own)
            return generic.apply(env, "minerl/diamond", {"action_repeat": action_repeat})
        if task not in STOCK:
            raise UnknownEnvironment()
        if own:
            choices = ", ".join(["render_mode", *generic.GENERIC])
            raise InvalidOption(f"minerl/{task} takes no option {min(own)!r}: there are {choices}")
        env = Stock(python(), {"id": task}, STOCK[task], render_mode)
        wrapped = {"action_repeat": action_repeat, "size": size, "time_limit": time_limit}
        return generic.apply(env, f"minerl/{task}", wrapped)

    def _diamond(
        self, size: Any, action_repeat: int | None, time_limit: int | None, render_mode: str | None, **own: Any
    ) -> Diamond:
        if unknown := own.keys() - set(shared.OPTIONS):
            choices = ", ".join([*OPTIONS, *generic.GENERIC])
            raise InvalidOption(f"minerl/diamond takes no option {min(unknown)!r}: there are {choices}")
        wrapped = {"size": size, "action_repeat": action_repeat, "time_limit": time_limit}
        read = shared.read("minerl/diamond", 90, **wrapped, **own)
        return Diamond(
            python(),
            size=(read.height, read.width),
            break_speed=read.break_speed,
            controls=Controls(read.sticky_attack, read.sticky_jump, read.pitch_limit),
            length=read.length,
            render_mode=render_mode,
        )


SUITE = MineRLSuite()
