"""``oneiros bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from oneiros.platform.cli import completion
from oneiros.platform.cli import options as o

app = typer.Typer(
    invoke_without_command=True, help="Measure how fast this machine is: the update, acting, the replay, training."
)

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
    began = _prepare(amx, threads, json)

    from oneiros.platform.bench import report
    from oneiros.platform.bench.learner import LearnerSettings
    from oneiros.platform.bench.update import measure_update
    from oneiros.platform.cli.output import console, table, write_json

    settings = LearnerSettings(
        size, obs, device, precision, compile, batch_size, batch_length, horizon, replay_rows, _overrides(set_)
    )
    result = measure_update(settings, updates, began=began, trace=profile, operations=operations)
    console.print(table(["what", "measured"], report.update_rows(result)))
    if trace := result.get("operations"):
        console.print(table(["operation", "ms an update", "calls"], report.operation_rows(trace)), markup=False)
    write_json(json, result)


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
