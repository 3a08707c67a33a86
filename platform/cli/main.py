"""``oneiros``: finds the command, and turns a user's mistake into one sentence and exit code 2."""

from __future__ import annotations

import logging
import sys

import typer
from oneiros.platform.cli import (
    algorithms,
    config,
    demo,
    doctor,
    envs,
    evaluate,
    resume,
    runs,
    train,
)

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
app.command("demo")(demo.demo)
app.command("config")(config.config)
app.command("algorithms")(algorithms.algorithms)
app.command("doctor")(doctor.doctor)
app.command("runs")(runs.runs)
app.add_typer(envs.app, name="envs")


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
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
        mistake = user_mistake(error)
        if mistake is None:
            raise
        return _mistake(str(mistake))
    return result if isinstance(result, int) else 0


def user_mistake(error: BaseException) -> ValueError | None:
    """The user's mistake behind ``error``, if it is one: a ``ValueError`` class of Oneiros' own, or derived from one.

    Ray wraps what an actor raises; what it wraps counts.
    """
    cause = getattr(error, "cause", None)
    for candidate in (cause, error):
        if isinstance(candidate, ValueError) and any(
            kind.__module__.startswith("oneiros.") for kind in type(candidate).__mro__
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
