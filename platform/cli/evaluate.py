"""``oneiros evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from oneiros.platform.cli import options as o


def evaluate(
    path: o.RunPath,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 20,
    checkpoint: Annotated[
        str, typer.Option(help="latest, best (by return in training), env steps, or a path.")
    ] = "latest",
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the environments; else the run's own.")] = None,
    explore: Annotated[bool, typer.Option("--explore", help="Sample actions, as in training.")] = False,
    video: Annotated[Path | None, typer.Option(metavar="FILE", help="Film the first episode: .mp4 or .gif.")] = None,
    env_option: o.EnvOption = None,
    bits: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Where agents send messages: budgets of bits to play under as well, such as 0,6,24; '' for none.",
        ),
    ] = "auto",
    messages: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where agents send messages: write what became of each, as JSON lines."),
    ] = None,
    json: o.Json = None,
) -> None:
    """Play whole episodes with a run's policy and its best actions.

    Needs neither Ray nor the run's replay. Of several agents, it also reports what they believed, in pictures
    too, which the run's MLflow run is given.
    """
    from contextlib import nullcontext
    from functools import partial

    from oneiros.platform.cli.beginning import spaces_of_environment
    from oneiros.platform.cli.beliefs import Letters, budgets, record, spend
    from oneiros.platform.cli.output import console, notes, write_json
    from oneiros.platform.cli.training import describe
    from oneiros.platform.config import overrides_layer
    from oneiros.platform.data.filling import require_same_spaces
    from oneiros.platform.rollout import evaluate as play
    from oneiros.platform.tracking import RunDirectory, VideoWriter
    from oneiros.platform.training.policy_file import load_policy, policy_spaces

    run = RunDirectory.open(path)
    wanted = budgets(bits)
    config = run.config()
    given = overrides_layer(env_option or (), "--env-option", "worlds=train").values
    options = {**config.evaluation_env_options, **given}
    _check_video(video)
    where = run.find_checkpoint(checkpoint)
    policy, manifest = load_policy(where, seed=config.evaluation.seed if seed is None else seed)
    if given:
        played = spaces_of_environment(config.env, options)
        require_same_spaces(f"the checkpoint {where}", policy_spaces(manifest), played)
    letters = Letters(messages, policy, run) if messages is not None else None
    notes.print(f"Checkpoint {where} ({manifest.env_steps:,} env steps)")
    again = partial(
        play,
        config.env,
        policy,
        episodes,
        seed=config.evaluation.seed if seed is None else seed,
        mode="train" if explore else "eval",
        num_envs=config.num_envs_per_runner,
        vectorization=config.vectorization,
        env_options=options,
    )
    with VideoWriter(video) if video is not None else nullcontext() as film:
        result = again(film=film, messages=letters.add if letters is not None else None)
    if letters is not None:
        letters.write()
    figures: dict[str, Any] = {**result.summary(), "env_steps": manifest.env_steps, "checkpoint": str(where)}
    figures["env_options"] = options
    if film is not None and film.frames:
        notes.print(f"Video {video}")
    if result.tables or any(name.startswith("intent/") for name in result.extras):
        pictures, numbers = record(run, result, spend(policy, result, wanted, again), manifest.env_steps)
        figures |= {"pictures": [str(picture) for picture in pictures], "mlflow": dict(numbers)}
    console.print(describe(figures))
    write_json(json, figures)


def _check_video(video: Path | None) -> None:
    from oneiros.platform.config import ConfigError

    if video is not None and video.suffix not in (".mp4", ".gif"):
        raise ConfigError(f"--video {video} must end in .mp4 or .gif.")
