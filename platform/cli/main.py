"""``oneiros``: finds the command, and turns a user's mistake into one sentence and exit code 2."""

from __future__ import annotations

import logging
import sys
import warnings

import typer
from oneiros.platform.cli import (
    algorithms,
    bench,
    config,
    data,
    demo,
    doctor,
    envs,
    evaluate,
    export,
    jobs,
    resume,
    runs,
    serve,
    setup,
    submit,
    sweep,
    train,
)

FAILED = 1
USER_MISTAKE = 2
INTERRUPTED = 130

app = typer.Typer(
    name="oneiros",
    help="World-model reinforcement learning: train agents inside learned worlds, on a laptop or a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("resume")(resume.resume)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("config")(config.config)
app.command("algorithms")(algorithms.algorithms)
app.command("doctor")(doctor.doctor)
app.command("runs")(runs.runs)
app.command("submit")(submit.submit)
app.command("sweep")(sweep.sweep)
app.add_typer(data.app, name="data")
app.add_typer(envs.app, name="envs")
app.add_typer(jobs.app, name="jobs")
app.add_typer(setup.app, name="setup")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if not sys.warnoptions:
        # Other libraries' advice to their programmers is not for who trains an agent; python -W shows it.
        warnings.simplefilter("ignore")
        logging.getLogger("ray").setLevel(logging.ERROR)
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run one command and return its exit code: 0, 2 for a user's mistake, 130 after Ctrl-C, or the command's own."""
    try:
        result = app(words, prog_name="oneiros", standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        # Newer versions of typer bring a click of their own, so its exceptions are known by what they can do.
        if hasattr(error, "format_message"):
            return _mistake(error.format_message(), getattr(error, "ctx", None))
        if (mistake := own_error(error, ValueError)) is not None:
            return _mistake(str(mistake))
        if (fault := own_error(error, RuntimeError)) is not None:
            print(f"oneiros: {fault}", file=sys.stderr)
            return FAILED
        raise
    return result if isinstance(result, int) else 0


def own_error(error: Exception, kind: type[Exception]) -> Exception | None:
    """The error of a class of Oneiros' own, derived from ``kind``, that ``error`` is or that Ray wrapped in it.

    By their classes, ``ValueError`` are mistakes of the user and ``RuntimeError`` faults that have a sentence: anything
    else is a bug, whose traceback is needed.
    """
    for candidate in (getattr(error, "cause", None), error):
        if isinstance(candidate, kind) and any(
            base.__module__.startswith("oneiros.") for base in type(candidate).mro()
        ):
            return candidate
    return None


def _mistake(sentence: str, context: object = None) -> int:
    if not sentence.endswith((".", "?", "!", ")")):
        sentence += "."
    if path := getattr(context, "command_path", None):
        sentence += f" ('{path} --help' says what there is)"
    print(f"oneiros: {sentence}", file=sys.stderr)
    return USER_MISTAKE
