"""Options that several commands share, and how they become a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from oneiros.platform.cli import completion

if TYPE_CHECKING:
    from oneiros.platform.config import Layer, Resolved


YAML_ENDINGS = (".yaml", ".yml")

Env = Annotated[
    str,
    typer.Argument(
        metavar="ENV",
        help="Environment id, such as CartPole-v1 or dmc/walker_walk; or config.yaml.",
        autocompletion=completion.envs,
    ),
]
OptionalEnv = Annotated[
    str | None,
    typer.Argument(
        metavar="[ENV]",
        help="Environment id, such as CartPole-v1 or dmc/walker_walk; or config.yaml.",
        autocompletion=completion.envs,
    ),
]
ConfigFile = Annotated[Path | None, typer.Argument(metavar="[CONFIG.YAML]", help="Settings, under the flags.")]
RunPath = Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")]
Agent = Annotated[
    str | None, typer.Option(help="Algorithm: 'oneiros algorithms' lists them.", autocompletion=completion.algorithms)
]
Preset = Annotated[
    str | None,
    typer.Option(help="Preset of the algorithm; else chosen by the environment.", autocompletion=completion.presets),
]
Size = Annotated[str | None, typer.Option(help="Model size, such as 1m or 12m.")]
EnvSteps = Annotated[int | None, typer.Option(help="Policy steps to collect.")]
Seed = Annotated[int | None, typer.Option(help="Seed of agent, environments and replay.")]
RunDir = Annotated[Path | None, typer.Option(help="Where the run is kept.")]
Engine = Annotated[
    str | None,
    typer.Option(
        help="rllib (on Ray) or local (this process, no Ray).", autocompletion=completion.one_of("rllib", "local")
    ),
]
NumRunners = Annotated[int | None, typer.Option(help="Processes that step environments; 0: one process for all.")]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=completion.one_of("auto", "cpu", "cuda"))
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting by its dotted name; repeatable.",
        autocompletion=completion.settings,
    ),
]
EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env-option",
        metavar="KEY=VALUE",
        help="An option of the environment, such as worlds=train, over those of the run's evaluations; repeatable.",
    ),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")]


@dataclass(frozen=True)
class Flags:
    """What was said on the command line; None where nothing was."""

    env: str | None
    file: Path | None = None
    overrides: tuple[str, ...] = ()
    agent: str | None = None
    preset: str | None = None
    size: str | None = None
    env_steps: int | None = None
    seed: int | None = None
    run_dir: Path | None = None
    engine: str | None = None
    num_runners: int | None = None
    device: str | None = None

    def resolve(self, under: Sequence[Layer] = ()) -> Resolved:
        """Layer file, overrides and flags over the layers ``under`` them; raises ``ConfigError``."""
        from oneiros.platform.config import resolve

        return resolve([*under, *self.layers()])

    def layers(self) -> list[Layer]:
        """File, overrides and flags, the last of which counts most; raises ``ConfigError``."""
        from oneiros.platform.config import Layer, overrides_layer, yaml_layer

        env, file = self.env, self.file
        if file is None and env is not None and env.endswith(YAML_ENDINGS):
            file, env = Path(env), None
        layers = [yaml_layer(file)] if file is not None else []
        layers.append(overrides_layer(self.overrides))
        flags: dict[str, tuple[str, Any]] = {
            "ENV": ("env", env),
            "--agent": ("agent", self.agent),
            "--preset": ("preset", self.preset),
            "--size": ("hyper.size", self.size),
            "--env-steps": ("env_steps", self.env_steps),
            "--seed": ("seed", self.seed),
            "--run-dir": ("run_dir", None if self.run_dir is None else str(self.run_dir)),
            "--engine": ("engine", self.engine),
            "--num-runners": ("num_runners", self.num_runners),
            "--device": ("device", self.device),
        }
        layers += [Layer(flag, {key: value}) for flag, (key, value) in flags.items() if value is not None]
        return layers
