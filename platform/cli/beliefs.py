"""What ``oneiros evaluate`` does beyond the return for a checkpoint of several agents: pictures, and MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from oneiros.algorithms.contract import Policy
from oneiros.platform.cli.output import claim_json, notes
from oneiros.platform.config import ConfigError
from oneiros.platform.rollout import EvaluationResult
from oneiros.platform.rollout.evaluate import Corresponds
from oneiros.platform.tracking import RunDirectory
from oneiros.platform.tracking.belief_plots import Spent, draw

SHARES = (0.0, 0.125, 0.25, 0.5)
"""Of the bits that are sent without a budget: the budgets played under as well."""


@runtime_checkable
class Speaks(Protocol):
    """A policy whose agents send each other messages that cost bits."""

    def limit_bits(self, bits: float | None) -> None:
        """Let no agent send more than ``bits`` an episode from now on; None is no limit."""


def budgets(text: str) -> list[float] | None:
    """What ``--bits`` says; None for ``auto``. Raises ``ConfigError``."""
    if text == "auto":
        return None
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = [-1.0]
    if any(not 0 <= number < float("inf") for number in numbers):
        raise ConfigError(f"--bits {text!r} must be auto, or numbers from 0 on such as 0,6,24 (none: an empty text).")
    return numbers


class Letters:
    """The ``--messages`` file, a line for each; raises ``ConfigError`` if nobody sends any."""

    def __init__(self, path: Path, policy: Policy, run: RunDirectory) -> None:
        sends = isinstance(policy, Corresponds) and policy.keep_messages(True)
        if not sends:
            raise ConfigError(
                f"--messages needs agents that send each other some, and {run.path} has none that do: those of "
                "'--agent belief' do where hyper.channel.tokens is at least 1."
            )
        claim_json(path, "--messages")
        self._path, self._lines = path, list[str]()

    def add(self, message: Mapping[str, Any]) -> None:
        """Note one."""
        self._lines.append(json.dumps(message) + "\n")

    def write(self) -> None:
        """Write all that were noted."""
        self._path.write_text("".join(self._lines), encoding="utf-8")
        notes.print(f"Messages {self._path}")


def spend(
    policy: Any, result: EvaluationResult, wanted: Sequence[float] | None, play: Callable[[], EvaluationResult]
) -> list[Spent]:
    """``result``, and what comes of playing under budgets of bits; nothing where no messages are sent."""
    sent = [value for name, value in result.extras.items() if name.startswith("bits/")]
    if not sent or not isinstance(policy, Speaks):
        return []
    points = [_spent(None, result)]
    for budget in [share * max(sent) for share in SHARES] if wanted is None else wanted:
        policy.limit_bits(budget)
        points.append(_spent(budget, play()))
        notes.print(f"At most {budget:g} bits: return {np.mean(points[-1].returns):.1f}")
    policy.limit_bits(None)
    return points


def _spent(budget: float | None, result: EvaluationResult) -> Spent:
    sent = sum(value for name, value in result.extras.items() if name.startswith("bits/"))
    right = [v for name, v in result.extras.items() if name.startswith("belief/") and name.endswith("/accuracy")]
    return Spent(budget, sent, result.returns, float(np.mean(right)) if right else None)


def record(
    run: RunDirectory, result: EvaluationResult, spent: Sequence[Spent], env_steps: int
) -> tuple[list[Path], Mapping[str, float]]:
    """Draw the pictures under the run's ``media/beliefs``, and bring them and all numbers to its MLflow run.

    Returns the pictures, and the numbers as MLflow is told them.
    """
    pictures = draw(run.media / "beliefs" / f"{env_steps:012d}", result.extras, result.tables, spent)
    numbers = {"return_mean": result.return_mean, "return_std": result.return_std, **result.extras}
    for point in spent:
        if point.budget is not None:
            numbers[f"bits_at_most/{point.budget:g}/return_mean"] = float(np.mean(point.returns))
            numbers[f"bits_at_most/{point.budget:g}/bits"] = point.bits
            if point.accuracy is not None:
                numbers[f"bits_at_most/{point.budget:g}/accuracy"] = point.accuracy
    numbers = {f"evaluation/{name}": value for name, value in numbers.items()}
    for picture in pictures:
        notes.print(f"Picture {picture}")
    _tell_mlflow(run, numbers, pictures, env_steps)
    return pictures, numbers


def _tell_mlflow(run: RunDirectory, numbers: Mapping[str, float], pictures: Sequence[Path], env_steps: int) -> None:
    """MLflow may be away, or have been told nothing of this run: the pictures are in its directory anyway."""
    from oneiros.platform.tracking.mlflow_run import amend

    config = run.config()
    if not config.tracking.mlflow:
        return
    try:
        uri = amend(run, config, numbers, {picture: f"beliefs/{env_steps:012d}" for picture in pictures}, env_steps)
    except Exception as error:
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        notes.print(f"MLflow was not told ({reason}).")
        return
    if uri is None:
        notes.print(f"MLflow has no run of {run.path}: 'oneiros runs --send {run.path}' makes one.")
    else:
        notes.print(f"MLflow at {uri} has the numbers and the pictures.")
