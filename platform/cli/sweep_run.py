"""Ray Tune around the trials of a sweep."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from oneiros.platform.cli.output import notes
from oneiros.platform.cli.sweep_trial import Plan, Trial, run_name
from oneiros.platform.jobs.search_space import SearchSpace
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

PROBE = "probe"
REDUCTION = 3


@dataclass(frozen=True)
class Search:
    """How trials are drawn and compared."""

    space: SearchSpace
    samples: int
    """Draws of what is random, each with every combination of the grids."""
    seed: int
    mode: str
    """``max`` or ``min``."""
    concurrent: int
    """Trials at a time; 0: as many as fit."""
    asha_grace: int | None
    """Env steps that every trial gets before ASHA may end it; None: all trials run to their ends."""
    retries: int
    cpus: float
    gpus: float


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended."""

    values: dict[str, Any]
    state: str
    """``done``, ``stopped`` (by ASHA, or a signal) or ``failed``."""
    metric: float | None
    env_steps: int
    run_dir: str
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**self.__dict__}


def run_sweep(plan: Plan, search: Search) -> list[TrialResult]:
    """Run every trial and return how each ended, the best first; starts Ray where there is none.

    A trial that fails costs itself: it is tried again as often as ``search`` says, then counted as failed.
    """
    # Tune's own loggers write each of hundreds of figures one by one; ours are written already.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # What it prints of trials, we print in a line.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    started_ray = not ray.is_initialized()
    if started_ray:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(Trial, plan=plan), lambda values: _resources(plan, search, values)
            ),
            param_space=search.space.domains(),
            tune_config=tune.TuneConfig(
                metric=plan.metric,
                mode=search.mode,
                num_samples=search.samples,
                search_alg=BasicVariantGenerator(max_concurrent=search.concurrent, random_state=search.seed),
                scheduler=_scheduler(plan, search),
                reuse_actors=False,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(plan.folder),
                verbose=0,
                # Trainings keep checkpoints of their own.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=search.retries),
                callbacks=[_Teller(plan.metric)],
            ),
        )
        grid = tuner.fit()
        results = [_result(plan, grid[index]) for index in range(len(grid))]
    finally:
        if started_ray:
            ray.shutdown()
    return sorted(results, key=lambda result: _rank(result, search.mode))


def _resources(plan: Plan, search: Search, values: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What a trial occupies: its own process, its env runners and its learners."""
    config = plan.resolve(values, PROBE).config
    bundles = [{"CPU": search.cpus, "GPU": search.gpus}]
    if config.engine == "rllib" and config.num_runners:
        from oneiros.platform.engine.rllib_engine import algorithm_config, gpus_per_learner

        settings = algorithm_config(config)
        bundles += [{"CPU": settings.num_cpus_per_env_runner}] * config.num_runners
        per_learner = 1.0 if settings.num_cpus_per_learner == "auto" else float(settings.num_cpus_per_learner)
        gpus = gpus_per_learner(config, ray.cluster_resources().get("GPU", 0.0))
        learner = {"CPU": per_learner, "GPU": float(gpus)}
        bundles += [learner] * config.num_learners
    return tune.PlacementGroupFactory([{name: amount for name, amount in one.items() if amount} for one in bundles])


def _scheduler(plan: Plan, search: Search) -> Any:
    if search.asha_grace is None:
        return None
    # ASHA would end a trial at max_t, in the middle of its last evaluation: trials know their ends themselves.
    longest = max(plan.resolve(values, PROBE).config.env_steps for values in search.space.corners())
    return tune.schedulers.ASHAScheduler(
        time_attr="env_steps", max_t=2 * longest, grace_period=search.asha_grace, reduction_factor=REDUCTION
    )


class _Teller(tune.Callback):
    """Says how each trial ends. Tune pickles it, so it must not hold the console."""

    def __init__(self, metric: str) -> None:
        self._metric = metric

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See Ray Tune."""
        figures = trial.last_result or {}
        value = figures.get(self._metric)
        reached = "nothing to compare" if value is None else f"{self._metric} {value:.4g}"
        notes.print(f"{_name(trial)}: {reached} after {figures.get('env_steps', 0):,} env steps ({_values(trial)})")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See Ray Tune."""
        notes.print(f"{_name(trial)}: failed ({_values(trial)})")


def _name(trial: Any) -> str:
    return run_name(str(trial.trial_id))


def _values(trial: Any) -> str:
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in trial.config.items()
    )


def _result(plan: Plan, result: Any) -> TrialResult:
    figures = result.metrics or {}
    value = figures.get(plan.metric)
    finished = figures.get("reason") in ("done", "return reached", "time is up")
    state = "failed" if result.error is not None else "done" if finished else "stopped"
    error = None if result.error is None else (str(result.error).strip().splitlines() or ["unknown"])[-1]
    return TrialResult(
        values=dict(result.config or {}),
        state=state,
        metric=None if value is None or math.isnan(value) else float(value),
        env_steps=int(figures.get("env_steps", 0)),
        run_dir=str(plan.folder / Path(result.path).name),
        error=error,
    )


def _rank(result: TrialResult, mode: str) -> float:
    if result.metric is None or result.state == "failed":
        return math.inf
    return -result.metric if mode == "max" else result.metric
