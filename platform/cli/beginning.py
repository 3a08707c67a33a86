"""What a training begins with, beside its settings: recorded episodes, or what another run has learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from oneiros.platform.config import Layer, RunConfig
    from oneiros.platform.data.npz_folder import Spaces
    from oneiros.platform.training.engine import Engine

Offline = Annotated[
    str | None,
    typer.Option("--offline", metavar="DATA", help="Learn from these episodes alone: a folder, or minari:ID."),
]
Prefill = Annotated[
    str | None, typer.Option("--prefill", metavar="DATA", help="Put these episodes into the replay first.")
]
From = Annotated[
    Path | None, typer.Option("--from", metavar="DIR", help="Begin with what this run, or checkpoint, has learnt.")
]
Reset = Annotated[
    str | None, typer.Option("--reset", metavar="PARTS", help="Parts of it that begin anew, such as actor,critic.")
]
NO_ENV = "offline/data"
"""The environment of a run on data that names none: it is never made."""


@dataclass(frozen=True)
class Beginning:
    """The flags of ``oneiros train`` that say it; None where nothing was said."""

    offline: str | None = None
    prefill: str | None = None
    from_: Path | None = None
    reset: str | None = None

    def layers(self, env: str | None) -> list[Layer]:
        """The settings that follow from them, under everything else that is said; raises ``ConfigError``."""
        from oneiros.platform.config import ConfigError, Layer

        layers = []
        if self.from_ is not None:
            layers.append(self._from_layer(self.from_))
        elif self.reset is not None:
            raise ConfigError("--reset goes with --from: it names parts of what another run has learnt.")
        if self.prefill is not None:
            layers.append(Layer("--prefill", {"data.prefill": self._place(self.prefill)}))
        if self.offline is not None:
            values: dict[str, Any] = {"engine": "local", "data.offline": self._place(self.offline)}
            layers.append(Layer("--offline", values | self._environment(env)))
        elif env is None:
            raise ConfigError("ENV must be given: an environment id such as CartPole-v1 (oneiros envs lists them).")
        return layers

    def _from_layer(self, path: Path) -> Layer:
        """The algorithm and the hyperparameters of the run that is gone on from: its parameters fit no others."""
        from oneiros.platform.checkpoint import read_manifest
        from oneiros.platform.config import Layer
        from oneiros.platform.tracking import RunDirectory

        run = RunDirectory(path)
        checkpoint = run.find_checkpoint() if run.config_file.is_file() else path
        manifest = read_manifest(checkpoint)
        values: dict[str, Any] = {
            "agent": manifest.algorithm,
            "hyper": manifest.hyperparameters,
            "start.checkpoint": str(checkpoint.resolve()),
            "start.reset": [part.strip() for part in (self.reset or "").split(",") if part.strip()],
        }
        return Layer(f"--from {path}", values)

    def _environment(self, env: str | None) -> dict[str, Any]:
        """The environment that data were recorded in, where none is named; it is evaluated in only if it is here."""
        from oneiros.envs import registry
        from oneiros.platform.cli.output import notes
        from oneiros.platform.data import open_data

        if env is not None:
            return {}
        assert self.offline is not None
        recorded = open_data(self.offline).env
        reason = "the data name no environment"
        if recorded is not None:
            try:
                registry.make(recorded).close()  # type: ignore[no-untyped-call]
                return {"env": recorded}
            except ValueError as error:
                reason = str(error)
        notes.print(f"Nothing is evaluated: {reason}.", markup=False)
        return {"env": recorded or NO_ENV, "evaluation.at_end": False}

    @staticmethod
    def _place(place: str) -> str:
        """``place`` for processes that work in other directories."""
        from oneiros.platform.data.minari_folder import PREFIX

        return place if place.startswith(PREFIX) else str(Path(place).resolve())


def spaces_of(config: RunConfig) -> Spaces:
    """The spaces that a run is trained with: its data's, to learn from them alone, or its environment's."""
    from oneiros.platform.data import open_data

    if config.data.offline is not None:
        data = open_data(config.data.offline)
        return data.observation_space, data.action_space
    return spaces_of_environment(config.env, config.env_options)


def check(config: RunConfig, spaces: Spaces) -> None:
    """Raise what is wrong with the data and the checkpoint that a run begins with, before anything is built.

    Raises ``ConfigError``, ``DataError`` or ``CheckpointError``.
    """
    from oneiros.platform.checkpoint import read_manifest, require_algorithm
    from oneiros.platform.data import open_data
    from oneiros.platform.data.filling import require_same_spaces
    from oneiros.platform.training.agents import agent_class, agent_name
    from oneiros.platform.training.fine_tuning import parts_of, read_learnt
    from oneiros.platform.training.policy_file import policy_spaces

    evaluated = config.evaluation.at_end or config.evaluation.every_env_steps is not None
    if config.data.offline is not None and evaluated:
        played = spaces_of_environment(config.env, config.evaluation_env_options)
        require_same_spaces(f"the data set {config.data.offline}", spaces, played)
    if config.data.prefill is not None:
        data = open_data(config.data.prefill)
        require_same_spaces(f"the data set {data.place}", (data.observation_space, data.action_space), spaces)
    if config.start.checkpoint is not None:
        checkpoint = config.start.checkpoint
        manifest = read_manifest(checkpoint)
        require_algorithm(manifest, checkpoint, agent_name(config.agent))
        require_same_spaces(f"the checkpoint {checkpoint}", policy_spaces(manifest), spaces)
        _require_parts(config.start.reset, parts_of(agent_class(config.agent), read_learnt(checkpoint)))


def check_evaluation(config: RunConfig, spaces: Spaces) -> None:
    """Raise what is wrong with ``evaluation.env_options``, such as pictures of another size than in training.

    Of data alone, ``check`` compares them with the environment of evaluations. Raises ``DataError``, or the registry's
    errors.
    """
    from oneiros.platform.data.filling import require_same_spaces

    if config.evaluation.env_options and config.data.offline is None:
        played = spaces_of_environment(config.env, config.evaluation_env_options)
        require_same_spaces("the environment", spaces, played, "with evaluation.env_options it")


def spaces_of_environment(env_id: str, options: Mapping[str, Any]) -> Spaces:
    """The spaces of an environment, which is made and closed; raises the registry's errors."""
    from oneiros.envs import registry

    env = registry.make(env_id, **options)
    try:
        return env.observation_space, env.action_space
    finally:
        env.close()  # type: ignore[no-untyped-call]


def _require_parts(reset: Sequence[str], parts: Any) -> None:
    from oneiros.platform.config.errors import unknown

    for name in reset:
        if name not in parts:
            raise unknown("part", name, parts, " (in --reset)")


def begin(engine: Engine, config: RunConfig, say: Callable[[str], None]) -> None:
    """Give a new engine what the run begins with."""
    if config.start.checkpoint is not None:
        engine.begin_from(config.start.checkpoint, config.start.reset)
        anew = f", but for {', '.join(config.start.reset)}" if config.start.reset else ""
        say(f"Beginning with what {config.start.checkpoint} has learnt{anew}")
    if config.data.prefill is not None:
        engine.prefill(config.data.prefill)
        say(f"The replay begins with {config.data.prefill}")
