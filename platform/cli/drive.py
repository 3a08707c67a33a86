"""The loop around an engine: record, save, evaluate, show, until the run is done or interrupted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oneiros.platform.cli.interruption import Interrupted, Interruption
from oneiros.platform.cli.progress import Display
from oneiros.platform.config import RunConfig
from oneiros.platform.tracking import RunDirectory, Tracker

if TYPE_CHECKING:
    from oneiros.platform.rollout import EvaluationResult
    from oneiros.platform.training.engine import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    reason: str
    """``done``, ``return reached``, ``time is up`` or ``interrupted``."""
    env_steps: int
    seconds: float
    checkpoint: Path | None
    evaluation: EvaluationResult | None


class Every:
    """Says when something is due again, by seconds, by env steps, or by whichever comes first."""

    def __init__(self, seconds: float | None, env_steps: int | None, at: int) -> None:
        self._seconds = seconds
        self._env_steps = env_steps
        self._when = time.monotonic()
        self._at = at

    def due(self, env_steps: int) -> bool:
        """Whether it is due now; if so, the next time is counted from here."""
        by_time = self._seconds is not None and time.monotonic() - self._when >= self._seconds
        by_steps = self._env_steps is not None and env_steps // self._env_steps > self._at // self._env_steps
        if by_time or by_steps:
            self._when, self._at = time.monotonic(), env_steps
        return by_time or by_steps


class Drive:
    """Runs an engine to the end of its run."""

    def __init__(
        self,
        engine: Engine,
        run: RunDirectory,
        config: RunConfig,
        tracker: Tracker,
        display: Display,
        interruption: Interruption,
        say: Callable[[str], None],
        checkpoint: Path | None = None,
    ) -> None:
        """``checkpoint``: what the engine was restored from, if anything."""
        self.engine = engine
        self.run_directory = run
        self.config = config
        self.tracker = tracker
        self.display = display
        self.interruption = interruption
        self.say = say
        self.checkpoint = checkpoint
        self.faults = {"failed_saves": 0, "failed_evaluations": 0, "failed_videos": 0, "failed_exports": 0}
        self._checkpoints = run.store(config.checkpoint.keep)
        self._known: dict[str, float] = {}
        self._filmed_at: int | None = None
        self._started = time.monotonic()

    def run(self) -> Outcome:
        """Train until the env steps are taken, the return is reached, time is up, or a signal arrives; save; conclude.

        Raises whatever the engine raises; ``checkpoint`` is then the last one that was written. What can still be saved
        is saved first: environments that broke, or updates that were skipped, have not harmed what was learnt.
        """
        config, engine = self.config, self.engine
        self.interruption.hurry = engine.hurry
        start = engine.env_steps
        record = Every(config.tracking.every_seconds, None, start)
        save = Every(config.checkpoint.every_seconds, config.checkpoint.every_env_steps, start)
        evaluate = Every(None, config.evaluation.every_env_steps, start)
        film = Every(None, config.tracking.videos_every_env_steps, start)
        recorded = False
        with self.display:
            self.display.update(start, {})
            while (reason := self._finished()) is None:
                try:
                    metrics = engine.step()
                except Exception:
                    if engine.env_steps > start:
                        self._surviving("failed_saves", self._save)
                    raise
                self._known.update(metrics)
                self.display.update(engine.env_steps, metrics)
                if film.due(engine.env_steps):
                    self._beside("failed_videos", self._film)
                if evaluate.due(engine.env_steps):
                    self._beside("failed_evaluations", lambda: self._evaluate(config.evaluation.seed + 1))
                if save.due(engine.env_steps):
                    self._save()
                if recorded := record.due(engine.env_steps):
                    self._record()
        if not recorded:
            self._record()
        if self.checkpoint is None or engine.env_steps > start:
            self._save()
        evaluation = None if reason == "interrupted" else self._conclude()
        if self.interruption.signal is not None:
            reason = "interrupted"
        else:
            self._surviving("failed_saves", lambda: self.run_directory.conclude(reason, engine.env_steps), OSError)
        return Outcome(reason, engine.env_steps, time.monotonic() - self._started, self.checkpoint, evaluation)

    def _conclude(self) -> EvaluationResult | None:
        """Film, evaluate and export what was learnt: each may fail, a signal ends them, and ``resume`` begins anew."""
        evaluation = None
        config = self.config
        with suppress(Interrupted), self.interruption.abortable():
            if config.tracking.videos and self._filmed_at != self.engine.env_steps:
                self._surviving("failed_videos", self._film)
            if config.evaluation.at_end:
                evaluation = self._evaluate_at_end()
                if config.tracking.videos:
                    self._surviving("failed_videos", self._film_episode)
            if self.tracker.uri is not None and config.tracking.checkpoint is not None:
                self._surviving("failed_exports", self._store_checkpoint)
            if self.tracker.uri is not None and config.tracking.model is not None:
                self._surviving("failed_exports", lambda: self._export(evaluation))
        return evaluation

    def _evaluate_at_end(self) -> EvaluationResult | None:
        self.say(f"Evaluating {self.config.evaluation.episodes} episodes.")
        found: list[EvaluationResult] = []
        # Other episodes than those that may have ended the run: they were lucky more often than not.
        if self._surviving("failed_evaluations", lambda: found.append(self._evaluate(self.config.evaluation.seed))):
            self.tracker.artifact(self.run_directory.evaluation_file)
            return found[0]
        self.say(f"The evaluation failed; make it with: oneiros evaluate {self.run_directory.path}")
        return None

    def _finished(self) -> str | None:
        config = self.config
        if self.interruption.signal is not None:
            return "interrupted"
        if self.engine.env_steps >= config.env_steps:
            return "done"
        if config.stop_at_return is not None and self._return() >= config.stop_at_return:
            return "return reached"
        if config.max_seconds is not None and time.monotonic() - self._started >= config.max_seconds:
            return "time is up"
        return None

    def _return(self) -> float:
        """What ``stop_at_return`` looks at: the last evaluation's return where there are any, else training's."""
        if self.config.evaluation.every_env_steps is not None:
            return self._known.get("evaluation/return_mean", float("-inf"))
        enough = self._known.get("episodes", 0) >= EPISODES_TO_STOP
        return self._known.get("return", float("-inf")) if enough else float("-inf")

    def _record(self) -> None:
        if self._known:
            faults = {f"faults/{name}": float(count) for name, count in self.faults.items()}
            self.tracker.record(self._known | faults, self.engine.env_steps)

    def _save(self) -> None:
        """Save a checkpoint and delete those beyond ``keep``; a full disk costs this checkpoint, not the run."""
        path = self._checkpoints.path(self.engine.env_steps)
        if not self._surviving("failed_saves", lambda: self.engine.save(path.resolve()), OSError):
            return
        self.checkpoint = path
        self._checkpoints.prune()
        self.tracker.tags({"oneiros.checkpoint": str(path.resolve())})

    def _evaluate(self, seed: int) -> EvaluationResult:
        result = self.engine.evaluate(self.config.evaluation.episodes, seed)
        figures = {f"evaluation/{name}": value for name, value in result.metrics().items()}
        self._known.update(figures)
        self.tracker.record(figures, self.engine.env_steps)
        self._surviving("failed_saves", lambda: self.run_directory.write_evaluation(result.summary()), OSError)
        return result

    def _film(self) -> None:
        self._filmed_at = self.engine.env_steps
        for name, frames in self.engine.videos().items():
            self.tracker.video(name, frames, self.engine.env_steps)

    def _film_episode(self) -> None:
        """Film an episode of the policy that was saved last; not every environment can be seen."""
        from oneiros.platform.rollout import evaluate
        from oneiros.platform.training.policy_file import load_policy

        if self.checkpoint is None:
            return
        config = self.config
        policy, manifest = load_policy(self.checkpoint, seed=config.evaluation.seed)
        with self.tracker.film("episode", manifest.env_steps) as film:
            options = config.evaluation_env_options
            evaluate(config.env, policy, 1, seed=config.evaluation.seed, env_options=options, film=film)

    def _store_checkpoint(self) -> None:
        self.tracker.checkpoint(self.run_directory.find_checkpoint(self.config.tracking.checkpoint or "latest"))

    def _export(self, evaluation: EvaluationResult | None) -> None:
        """Export the policy for MLflow, with the return by which versions of it are compared."""
        from oneiros.platform.export import export_policy

        config, run = self.config, self.run_directory
        checkpoint = run.find_checkpoint(config.tracking.model or "latest")
        manifest = export_policy(checkpoint, run.policy, env=config.env, env_options=config.env_options)
        # An evaluation is of the newest weights, which the best checkpoint need not have.
        evaluated = evaluation is not None and checkpoint == self.checkpoint
        self.tracker.policy(run.policy, evaluation.return_mean if evaluated and evaluation else manifest.score)

    def _beside(self, fault: str, action: Callable[[], object]) -> None:
        """Do what training can do without: a failure costs only this, and so does a signal."""
        with suppress(Interrupted), self.interruption.abortable():
            self._surviving(fault, action)

    def _surviving(self, fault: str, action: Callable[[], object], kind: type[Exception] = Exception) -> bool:
        """Do what a run can do without: a failure is counted, logged the first time, and survived."""
        try:
            action()
        except kind as error:
            self.faults[fault] += 1
            if self.faults[fault] == 1:
                log.warning("%s (%s); the run goes on, faults/%s counts", fault.replace("_", " "), error, fault)
            return False
        return True


EPISODES_TO_STOP = 20
