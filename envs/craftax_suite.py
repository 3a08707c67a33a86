"""Craftax (Matthews et al., 2024): Crafter with dungeons below it, on JAX: ``craftax/symbolic``, ``craftax/pixels``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oneiros.envs import options as generic
from oneiros.envs.contract import InvalidOption, Requirement, UnknownEnvironment
from oneiros.envs.craftax_vector import LONGEST, CraftaxVector, Single
from oneiros.envs.options import AnyEnv


class CraftaxSuite:
    """Environments that step together, many thousand steps a second."""

    name = "craftax"
    description = "Craftax: survive, and descend through nine floors, stepped together on JAX"
    requirement = Requirement("pip install 'oneiros[craftax]'", ("craftax", "jax"))
    handles = frozenset({"size", "time_limit"})

    def tasks(self) -> Sequence[str]:
        """What is seen: 8,268 numbers, or pictures."""
        return ["symbolic", "pixels"]

    def make(self, task: str, **options: Any) -> AnyEnv:
        """Build one; ``time_limit`` replaces the benchmark's 10,000 steps, ``size`` scales the pictures."""
        env: AnyEnv = Single(self._build(task, 1, None, **options))
        return env

    def make_vector(self, task: str, num_envs: int, seeds: Sequence[int] | None, **options: Any) -> CraftaxVector:
        """Build ``num_envs`` that step together; raises ``InvalidOption`` for options that wrap one at a time."""
        options.pop("seed", None)
        if apart := sorted(set(options) & (set(generic.GENERIC) - self.handles)):
            raise InvalidOption(
                f"craftax/{task} steps its environments together, where the option {apart[0]!r} does not apply: "
                "use vectorization async"
            )
        return self._build(task, num_envs, seeds, **options)

    def _build(
        self,
        task: str,
        num_envs: int,
        seeds: Sequence[int] | None,
        *,
        size: Any = None,
        time_limit: int | None = None,
        render_mode: str | None = None,
        **unknown: Any,
    ) -> CraftaxVector:
        if task not in self.tasks():
            raise UnknownEnvironment()
        if unknown:
            choices = ", ".join(["render_mode", *generic.GENERIC])
            raise InvalidOption(f"craftax/{task} takes no option {min(unknown)!r}: there are {choices}")
        pixels = task == "pixels"
        sides = generic.frame_size(size)
        if not pixels and (sides or render_mode):
            raise InvalidOption(
                "craftax/symbolic shows no pictures: size and render_mode are options of craftax/pixels"
            )
        length = generic.count("time_limit", time_limit) or LONGEST
        return CraftaxVector(pixels, num_envs, size=sides, length=length, seeds=seeds, render_mode=render_mode)


SUITE = CraftaxSuite()
