"""The diamond protocol as a task of MineRL's: all that the game can say, and only what the 25 actions ask for."""

from __future__ import annotations

from typing import Any

NONE, OTHER = "none", "other"


def task(height: int, width: int, break_speed: float) -> Any:
    """The specification of the task, whose ``make`` builds the environment. Only here is MineRL imported."""
    from minerl.herobraine.env_specs.simple_embodiment import SimpleEmbodimentEnvSpec
    from minerl.herobraine.hero import handlers, mc

    class Diamond(SimpleEmbodimentEnvSpec):  # type: ignore[misc]  # MineRL has no types
        """Survival in a new world, from morning on. Rewards and the episode's length are the other side's business."""

        def __init__(self) -> None:
            super().__init__("OneirosDiamond-v0", resolution=(width, height))

        def create_observables(self) -> list[Any]:
            """The picture, every kind of item, what is in the hand, and how the player is."""
            return [
                *super().create_observables(),
                handlers.FlatInventoryObservation(mc.ALL_ITEMS),
                handlers.EquippedItemObservation(mc.ALL_ITEMS, _default=NONE, _other=OTHER),
                handlers.ObservationFromLifeStats(),
            ]

        def create_actionables(self) -> list[Any]:
            """The keys, the camera, and each command with the items that the protocol uses it for."""

            def items(*names: str) -> list[str]:
                return [NONE, *names]

            default = {"_other": NONE, "_default": NONE}
            pickaxes = "wooden_pickaxe", "stone_pickaxe", "iron_pickaxe"
            return [
                *super().create_actionables(),
                handlers.PlaceBlock(items("dirt", "crafting_table", "furnace"), **default),
                handlers.EquipAction(items(*pickaxes), **default),
                handlers.CraftAction(items("planks", "stick", "crafting_table"), **default),
                handlers.CraftNearbyAction(items(*pickaxes, "furnace"), **default),
                handlers.SmeltItemNearby(items("iron_ingot"), **default),
            ]

        def create_agent_start(self) -> list[Any]:
            """Empty hands, which break things faster."""
            return [handlers.AgentStartBreakSpeedMultiplier(break_speed)]

        def create_server_world_generators(self) -> list[Any]:
            """A world as players get it."""
            return [handlers.DefaultWorldGenerator(force_reset=True)]

        def create_server_initial_conditions(self) -> list[Any]:
            """Days pass, and what lives in the world appears in it."""
            time = handlers.TimeInitialCondition(allow_passage_of_time=True, start_time=0)
            return [time, handlers.SpawningInitialCondition(allow_spawning=True)]

        def create_server_quit_producers(self) -> list[Any]:
            """The world ends with the player's life."""
            return [handlers.ServerQuitWhenAnyAgentFinishes()]

        def create_rewardables(self) -> list[Any]:
            """None: the protocol's rewards follow from the observations."""
            return []

        def create_agent_handlers(self) -> list[Any]:
            """None: reaching the diamond does not end the episode."""
            return []

        def create_server_decorators(self) -> list[Any]:
            """None."""
            return []

        def is_from_folder(self, folder: str) -> bool:
            """Whether MineRL's own demonstrations in ``folder`` are of this task: they are of its stock tasks."""
            return False

        def determine_success_from_rewards(self, rewards: list[float]) -> bool:
            """MineRL asks this only where it renders demonstrations."""
            return False

        def get_docstring(self) -> str:
            """For MineRL's documentation."""
            return "The diamond protocol."

    return Diamond()
