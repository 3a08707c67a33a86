"""Everything that a run is told, beside the algorithm's own hyperparameters, which it carries along."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from oneiros.platform.config.errors import ConfigError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator


def _not_a_flag(value: Any) -> Any:
    """Python's ``True`` is 1; in a configuration it is a mistake."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


Count = Annotated[int, BeforeValidator(_not_a_flag)]
Real = Annotated[float, BeforeValidator(_not_a_flag), Field(allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen group of settings in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True)


class ReplayConfig(Section):
    """What is remembered, and what is drawn from it. Its batch and sequence lengths are hyperparameters."""

    capacity: Count = Field(
        default=5_000_000, ge=1_000, description="Rows kept, over all environments; the oldest go first."
    )
    online: bool = Field(default=True, description="Fresh sequences fill the batch before older ones do.")
    mixture: dict[Literal["uniform", "priority", "curious", "recency"], float] = Field(
        default={"uniform": 1.0}, description="Share of each way to draw the rest of the batch; the shares sum to 1."
    )
    latent_stride: Count = Field(
        default=1, ge=1, description="Latents are kept of every k-th row, and sequences begin there: less memory."
    )
    on_disk: bool = Field(
        default=True,
        description="Keep the rows in memory-mapped files under the run directory, which a killed run keeps.",
    )

    @field_validator("mixture")
    @classmethod
    def _shares_sum_to_one(cls, mixture: dict[str, float]) -> dict[str, float]:
        if any(share < 0 for share in mixture.values()) or not math.isclose(sum(mixture.values()), 1.0, abs_tol=1e-6):
            raise ValueError(f"must hold shares of at least 0 that sum to 1, not {mixture}")
        return mixture


class CheckpointConfig(Section):
    """When everything needed to go on is saved. A run always saves at its end and when it is interrupted."""

    every_seconds: Real = Field(default=600.0, gt=0, description="Seconds between two checkpoints.")
    every_env_steps: Count | None = Field(
        default=None, ge=1, description="Env steps between two checkpoints, besides every_seconds; null: by time only."
    )
    keep: Count = Field(
        default=2, ge=1, description="Newest checkpoints kept, beside the best one; others are deleted."
    )


class EvaluationConfig(Section):
    """Episodes played with the policy's best actions, apart from training."""

    episodes: Count = Field(default=20, ge=1, description="Episodes an evaluation plays.")
    every_env_steps: Count | None = Field(
        default=None, ge=1, description="Env steps between two evaluations during training; null: none until the end."
    )
    at_end: bool = Field(default=True, description="Evaluate once when training is done.")
    seed: Count = Field(
        default=1_000_000,
        ge=0,
        lt=2**31,
        description="Seeds the evaluation's environments, which differ from training's.",
    )
    env_options: dict[str, Any] = Field(
        default={}, description="Options of the evaluation's environments, laid by name over the run's env_options."
    )


class DataConfig(Section):
    """Recorded episodes to learn from: folders that oneiros data makes, or minari:ID."""

    offline: str | None = Field(
        default=None, description="Data set to learn from alone, without stepping an environment; null: act."
    )
    prefill: str | None = Field(default=None, description="Data set that a new run's replay begins with; null: empty.")


class StartConfig(Section):
    """What a new run has learnt already."""

    checkpoint: Path | None = Field(
        default=None, description="Checkpoint whose parameters it begins with; null: new ones."
    )
    reset: tuple[str, ...] = Field(default=(), description="Parts of them that begin anew, such as actor.")


class FaultToleranceConfig(Section):
    """What becomes of the processes of a run on Ray that hang or die."""

    env_runner_timeout_s: Real | None = Field(
        default=600.0,
        gt=0,
        description="Seconds without a word after which a runner is ended and started again; null: never.",
    )
    learner_timeout_s: Real | None = Field(
        default=1800.0, gt=0, description="The same for a learner process, which then counts as dead; null: never."
    )
    inference_timeout_s: Real = Field(
        default=120.0, gt=0, description="The same for the process that acts for all runners, if inference is learner."
    )
    recovery_interval_s: Real = Field(
        default=600.0, gt=0, description="Seconds between two saved states that learner processes go back to."
    )
    most_learner_restarts: Count = Field(
        default=3,
        ge=0,
        description="Times that dead learner processes are replaced without a newly saved state in between.",
    )


class TrackingConfig(Section):
    """Where a run's figures go. metrics.jsonl in the run directory is always written."""

    mlflow: bool = Field(default=True, description="Record the run in MLflow.")
    uri: str | None = Field(
        default=None,
        description="MLflow server or store; null: MLFLOW_TRACKING_URI, else mlflow.db beside the run directory.",
    )
    experiment: str = Field(default="oneiros", min_length=1, description="MLflow experiment.")
    run_name: str | None = Field(default=None, description="MLflow's name for the run; null: the run directory's name.")
    parent_run: str | None = Field(
        default=None, description="MLflow run id that this run is nested under, as in a sweep."
    )
    tags: dict[str, str] = Field(default={}, description="MLflow tags.")
    every_seconds: Real = Field(default=5.0, gt=0, description="Seconds between two records of the metrics.")
    system_metrics: bool = Field(default=True, description="Record use of processor, memory, disk and GPU.")
    model: Literal["latest", "best"] | None = Field(
        default="latest",
        description="Checkpoint whose policy is logged at the end as a registered MLflow model; null: none.",
    )
    checkpoint: Literal["latest", "best"] | None = Field(
        default="latest",
        description="Checkpoint that is stored at the end, without its replay, with the MLflow run; null: none.",
    )
    videos: bool = Field(
        default=True, description="Film open-loop predictions and an episode at the end, where there are images."
    )
    videos_every_env_steps: Count | None = Field(
        default=None, ge=1, description="Env steps between two films of open-loop predictions on the way; null: none."
    )


class RunConfig(Section):
    """One training run. Frozen: nothing changes it while the run goes on."""

    env: str = Field(min_length=1, description="Environment id: suite/task, or an id of Gymnasium's own.")
    env_options: dict[str, Any] = Field(default={}, description="Options of the environment, by name.")
    agent: str = Field(default="dreamerv3", min_length=1, description="Algorithm, by its entry point's name.")
    hyper: dict[str, Any] = Field(default={}, description="The algorithm's hyperparameters, by name.")
    preset: str | None = Field(
        default=None, description="Preset of the algorithm; null: chosen by the environment's id."
    )
    seed: Count = Field(default=0, ge=0, lt=2**31, description="Seeds the agent, the environments and the replay.")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where the agent learns: auto, cpu, cuda or cuda:N.",
    )

    env_steps: Count = Field(
        default=1_000_000,
        ge=1,
        description="Policy steps to collect, over all environments; a repeated action counts once.",
    )
    train_ratio: Real = Field(default=128.0, gt=0, description="Replayed steps per policy step.")
    learning_starts: Count = Field(default=1_024, ge=0, description="Policy steps collected before the first update.")
    random_steps: Count = Field(
        default=0, ge=0, description="Policy steps at the start whose actions are uniformly random."
    )
    stop_at_return: Real | None = Field(
        default=None,
        description="End early once an evaluation during training (evaluation.every_env_steps), or else the last 20 "
        "training episodes, return this much on average; null: never.",
    )
    max_seconds: Real | None = Field(default=None, gt=0, description="End early after this many seconds; null: never.")

    engine: Literal["rllib", "local"] = Field(
        default="rllib", description="rllib: on Ray, with any number of runners; local: this process, without Ray."
    )
    num_runners: Count = Field(
        default=0,
        ge=0,
        description="Processes that step environments while the learner learns; 0: one process does both.",
    )
    num_learners: Count = Field(
        default=0, ge=0, description="Learner processes, each with a share of the replay; 0: in this process."
    )
    num_envs_per_runner: Count = Field(default=8, ge=1, description="Environments that one runner steps together.")
    vectorization: Literal["sync", "async"] = Field(
        default="sync",
        description="sync: a runner's environments share its process; async: each has a process of its own.",
    )
    inference: Literal["runner", "learner"] = Field(
        default="runner",
        description="runner: each acts with its own copy of the policy; learner: one process on the learner's device "
        "acts for all of them.",
    )

    data: DataConfig = DataConfig()
    start: StartConfig = StartConfig()
    replay: ReplayConfig = ReplayConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    fault_tolerance: FaultToleranceConfig = FaultToleranceConfig()
    run_dir: Path | None = Field(default=None, description="Where the run is kept; null: a new folder under runs/.")

    @model_validator(mode="after")
    def _local_engine_is_one_process(self) -> Self:
        if self.engine == "local" and (self.num_runners or self.num_learners):
            raise ValueError(
                "engine local is one process: num_runners and num_learners must be 0 (engine rllib takes more)"
            )
        return self

    @model_validator(mode="after")
    def _inference_is_for_runners(self) -> Self:
        if self.inference == "learner" and not self.num_runners:
            raise ValueError("inference learner acts for runners: num_runners must be at least 1")
        return self

    @model_validator(mode="after")
    def _offline_is_one_process(self) -> Self:
        if self.data.offline is not None and self.engine != "local":
            raise ValueError(f"engine must be local to learn from data alone, not {self.engine}")
        return self

    @property
    def directory(self) -> Path:
        """``run_dir``, which a run that goes on disk must have."""
        if self.run_dir is None:
            raise ConfigError("run_dir must be given.")
        return self.run_dir

    @property
    def evaluation_env_options(self) -> dict[str, Any]:
        """``env_options`` with those of evaluations laid over them."""
        return {**self.env_options, **self.evaluation.env_options}

    def planned_updates(self, rows: int) -> int:
        """How many updates of ``rows`` replayed steps each the whole run will take."""
        return int(self.env_steps * self.train_ratio / rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: what YAML and JSON can hold, and ``RunConfig(**d)`` takes back."""
        return self.model_dump(mode="json")
