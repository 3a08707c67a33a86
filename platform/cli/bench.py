"""``oneiros bench``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from oneiros.platform.cli import completion
from oneiros.platform.cli import options as o

app = typer.Typer(invoke_without_command=True)

SIZES = ("1m", "12m", "25m", "50m", "100m", "200m", "400m")
Size = Annotated[str, typer.Option(help="Model size.", autocompletion=completion.one_of(*SIZES))]
Obs = Annotated[
    str,
    typer.Option(
        help="state (24 numbers, 6 continuous actions) or image (64x64x3, 17 discrete actions).",
        autocompletion=completion.one_of("state", "image"),
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=completion.one_of("auto", "cpu", "cuda"))
]
Precision = Annotated[
    str,
    typer.Option(help="auto, float32 or bfloat16.", autocompletion=completion.one_of("auto", "float32", "bfloat16")),
]
Compile = Annotated[
    str, typer.Option(help="on, off, or auto: where it can be.", autocompletion=completion.one_of("on", "off", "auto"))
]
Updates = Annotated[int, typer.Option(min=1, help="Updates to measure.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch; by default what it chooses.")]
Amx = Annotated[bool, typer.Option("--amx/--no-amx", help="Whether matrix products may use the AMX units.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any hyperparameter by its name; repeatable."),
]


@app.command("update")
def update(
    size: Size = "1m",
    obs: Obs = "state",
    device: Device = "cpu",
    precision: Precision = "auto",
    compile: Compile = "auto",
    updates: Updates = 20,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sequences in a batch.")] = None,
    batch_length: Annotated[int | None, typer.Option(min=2, help="Trained steps in a sequence.")] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Imagined steps.")] = None,
    replay_rows: Annotated[int | None, typer.Option(min=1, help="Rows in the replay.")] = None,
    threads: Threads = None,
    amx: Amx = True,
    set_: Overrides = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a Chrome trace of three further updates.")
    ] = None,
    operations: Annotated[
        bool, typer.Option("--operations/--no-operations", help="Count the arithmetic of an update.")
    ] = True,
    json: o.Json = None,
) -> None:
    """Time complete updates: sample, stage, learn, write back, read metrics."""
    _claim_profile(profile)
    began = _prepare(amx, threads, json)

    from oneiros.platform.bench import report
    from oneiros.platform.bench.learner import LearnerSettings
    from oneiros.platform.bench.update import measure_update
    from oneiros.platform.cli.output import console, table

    settings = LearnerSettings(
        size, obs, device, precision, compile, batch_size, batch_length, horizon, replay_rows, _overrides(set_)
    )
    result = measure_update(settings, updates, began=began, trace=profile, operations=operations)
    _tell(result, report.update_rows, json)
    if trace := result.get("operations"):
        console.print(table(["operation", "ms an update", "calls"], report.operation_rows(trace)), markup=False)


@app.command("act")
def act(
    size: Size = "1m",
    obs: Obs = "state",
    envs: Annotated[int, typer.Option(min=1, help="Environments that one runner steps together.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each environment to measure.")] = 1280,
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")] = 1,
    set_: Overrides = None,
    json: o.Json = None,
) -> None:
    """Time the env-runner loop around environments that cost nothing, with and without inference."""
    _prepare(True, threads, json)

    from oneiros.platform.bench import report
    from oneiros.platform.bench.act import measure_act
    from oneiros.platform.bench.learner import LearnerSettings

    # Acting is never compiled.
    settings = LearnerSettings(size, obs, device, compile="off", overrides=_overrides(set_))
    _tell(measure_act(settings, envs, steps), report.act_rows, json)


@app.command("replay")
def replay(
    obs: Obs = "image",
    size: Size = "12m",
    rows: Annotated[int, typer.Option(min=1, help="Rows that the replay holds.")] = 20_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences in a batch.")] = 16,
    batch_length: Annotated[int, typer.Option(min=1, help="Trained steps in a sequence, without the context.")] = 64,
    batches: Annotated[int, typer.Option(min=1, help="Batches to measure.")] = 100,
    latent_stride: Annotated[int, typer.Option(min=1, help="Keep latents of every so many rows.")] = 1,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Map the replay from files in here, a new folder.")
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    json: o.Json = None,
) -> None:
    """Time sampling and staging batches and inserting rows, and say what a row takes at every size."""
    _prepare(True, threads, json)

    from oneiros.platform.bench import report
    from oneiros.platform.bench.storage import measure_replay
    from oneiros.platform.cli.output import console, table

    result = measure_replay(
        obs,
        size=size,
        rows=rows,
        batch=batch_size,
        length=batch_length,
        batches=batches,
        latent_stride=latent_stride,
        directory=directory,
        device=device,
    )
    _tell(result, report.replay_rows, json)
    headings = ["bytes of a row at", "latents of every k-th", "observation", "latents", "rest", "all", "times obs."]
    console.print(table(headings, report.bytes_rows(result["row_bytes_by_size"])))


@app.command("train")
def train(
    size: Size = "1m",
    obs: Obs = "state",
    engine: Annotated[
        str, typer.Option(help="local or rllib.", autocompletion=completion.one_of("local", "rllib"))
    ] = "local",
    device: Device = "cpu",
    env_ms: Annotated[float, typer.Option(min=0, help="Milliseconds that a step of the environment takes.")] = 0.0,
    env_waits: Annotated[
        bool, typer.Option("--env-waits/--env-computes", help="Whether the environment sleeps, or computes.")
    ] = False,
    runners: Annotated[int, typer.Option(min=0, help="Processes that step environments (engine rllib).")] = 0,
    envs: Annotated[int, typer.Option(min=1, help="Environments that one runner steps together.")] = 8,
    train_ratio: Annotated[float, typer.Option(min=0, help="Replayed steps per policy step.")] = 32.0,
    vectorization: Annotated[
        str, typer.Option(help="sync or async.", autocompletion=completion.one_of("sync", "async"))
    ] = "sync",
    seconds: Annotated[float, typer.Option(min=0, help="How long to measure, once updates have begun.")] = 20.0,
    threads: Threads = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting of a run; repeatable.")
    ] = None,
    json: o.Json = None,
) -> None:
    """Train end to end for a while, in an environment that costs what it is told to."""
    began = _prepare(True, threads, json)

    from oneiros.platform.bench import report
    from oneiros.platform.bench.training import TrainingSettings, measure_training

    settings = TrainingSettings(
        size, obs, engine, device, env_ms, env_waits, runners, envs, train_ratio, vectorization, _overrides(set_)
    )
    _tell(measure_training(settings, seconds, began=began), report.training_rows, json)


@app.command("growth")
def growth(
    axis: Annotated[
        str,
        typer.Argument(
            help="batch_size, batch_length, imagination_length, size, envs, or replay_rows.",
            autocompletion=completion.one_of(
                "batch_size", "batch_length", "imagination_length", "size", "envs", "replay_rows"
            ),
        ),
    ],
    values: Annotated[
        list[str] | None, typer.Argument(help="Values to measure at; the axis' own if there are none.")
    ] = None,
    size: Size = "1m",
    obs: Obs = "state",
    device: Device = "cpu",
    precision: Precision = "auto",
    compile: Compile = "off",
    repeats: Annotated[int, typer.Option(min=1, help="Measurements at each value.")] = 5,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Map replays from files in here, a new folder.")
    ] = None,
    threads: Threads = None,
    amx: Amx = True,
    set_: Overrides = None,
    json: o.Json = None,
) -> None:
    """Measure how a cost grows with one setting, everything else staying as it is."""
    _prepare(amx, threads, json)

    from oneiros.platform.bench import report
    from oneiros.platform.bench.growth import measure_growth, parse_values
    from oneiros.platform.bench.learner import LearnerSettings
    from oneiros.platform.cli.output import console, table, write_json

    settings = LearnerSettings(size, obs, device, precision, compile, overrides=_overrides(set_))
    result = measure_growth(axis, settings, values=parse_values(axis, values), repeats=repeats, directory=directory)
    console.print(table([axis, result["figure"], "relative", "exponent"], report.growth_rows(result)))
    console.print(result["bound"])
    console.print(f"other processes: {report.load(result['other_load'])}")
    write_json(json, result)


@app.callback()
def bench(
    context: typer.Context,
    against: Annotated[
        str | None,
        typer.Option(help="rllib: its own DreamerV3, in turns.", autocompletion=completion.one_of("rllib")),
    ] = None,
    updates: Annotated[int, typer.Option(min=1, help="Updates of each to measure, with --against.")] = 15,
    precision: Precision = "auto",
    compile: Compile = "auto",
    threads: Threads = None,
    json: o.Json = None,
) -> None:
    """Measure how fast this machine is: the update, acting, the replay, training.

    With --against rllib, complete updates beside those of RLlib's own DreamerV3: as many parameters, the same batch.
    """
    from oneiros.platform.config import ConfigError

    if (command := context.invoked_subcommand) is not None:
        for name in context.params:
            if getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT":
                raise ConfigError(f"--{name} before {command!r} is for --against; options of {command!r} follow it.")
        return
    if against is None:
        raise ConfigError("bench measures one of update, act, replay, train and growth; or give --against rllib.")
    if against != "rllib":
        raise ConfigError(f"--against is {against!r}; it must be rllib.")
    _prepare(True, threads, json)

    from oneiros.platform.bench import report
    from oneiros.platform.bench.comparison import Comparison, measure_against_rllib

    settings = Comparison(precision=precision, compile=compile)
    _tell(measure_against_rllib(settings, updates), report.comparison_rows, json)


def _tell(result: dict[str, Any], rows: Callable[[dict[str, Any]], list[tuple[str, str]]], json: Path | None) -> None:
    from oneiros.platform.cli.output import console, table, write_json

    console.print(table(["what", "measured"], rows(result)))
    write_json(json, result)


def _claim_profile(path: Path | None) -> None:
    """Raise ``ConfigError`` now rather than after the measurement."""
    from oneiros.platform.config import ConfigError

    if path is not None and not path.resolve().parent.is_dir():
        raise ConfigError(f"--profile {path} cannot be written: its folder does not exist.")


def _prepare(amx: bool, threads: int | None, json: Path | None) -> float:
    """Settings of the process, before anything is computed; returns when it began."""
    from oneiros.platform.bench import machine
    from oneiros.platform.cli.output import claim_json

    claim_json(json)
    if not amx:
        machine.turn_amx_off()
    machine.set_threads(threads)
    return machine.process_began()


def _overrides(words: list[str] | None) -> dict[str, Any]:
    from oneiros.platform.config import overrides_layer

    return dict(overrides_layer(words or [], "--set").values)
