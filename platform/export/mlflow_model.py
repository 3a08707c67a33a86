"""A policy folder as an MLflow model: from code, with a signature, logged with its run and registered.

The signature is that of ``step_format``: named tensors, state in, state out, so a scoring server needs to remember
nothing of whom it serves.
"""

from __future__ import annotations

import contextlib
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneiros.platform.checkpoint import read_manifest
from oneiros.platform.export.acting import ExportedPolicy, load
from oneiros.platform.export.step_format import Shapes, first_step, input_shapes, output_shapes

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import Model, ModelSignature

MODEL = "policy"
CODE = Path(__file__).with_name("pyfunc_model.py")
CHAMPION = "champion"
SCORE_TAG = "oneiros.score"
# MLflow keeps the alias "latest" for itself: models:/NAME/latest is always the newest version.


def signature(policy: ExportedPolicy) -> ModelSignature:
    """The named tensors of a step, and the parameter ``mode``."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    def schema(shapes: Shapes) -> Schema:
        return Schema([TensorSpec(dtype, (-1, *shape), key) for key, (dtype, shape) in shapes.items()])

    return ModelSignature(
        schema(input_shapes(policy)),
        schema(output_shapes(policy)),
        ParamSchema([ParamSpec("mode", "string", "eval")]),
    )


def save_model(folder: Path, path: Path, model: Model | None = None) -> None:
    """Write the policy ``folder`` as an MLflow model into the new folder ``path``; no store is asked."""
    from mlflow import pyfunc

    policy = load(folder)
    pyfunc.save_model(
        path=str(path),
        python_model=str(CODE),
        artifacts={"policy": str(folder)},
        signature=signature(policy),
        input_example=first_step(policy),
        pip_requirements=[f"{name}=={version(name)}" for name in ("oneiros", "mlflow", "torch", "numpy")],
        metadata={
            "algorithm": policy.manifest.algorithm,
            "env": policy.env,
            "env_steps": policy.manifest.env_steps,
        },
        mlflow_model=model,
    )


def log_model(client: MlflowClient, run_id: str, folder: Path) -> LoggedModel:
    """Log the policy ``folder`` as a model of the run; raises ``MlflowException``."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    manifest = read_manifest(folder)
    tags = {"oneiros.env_steps": str(manifest.env_steps), "oneiros.agent": manifest.algorithm}
    logged = client.create_logged_model(client.get_run(run_id).info.experiment_id, MODEL, run_id, tags)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "model"
            model = Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                run_id=run_id,
                model_id=logged.model_id,
            )
            save_model(folder, path, model)
            client.log_model_artifacts(logged.model_id, str(path))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=manifest.env_steps)])
    except Exception:
        with contextlib.suppress(MlflowException):
            client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    return logged


def register(client: MlflowClient, logged: LoggedModel, name: str, score: float | None) -> str:
    """Register a logged model as the newest version of ``name``, and return the version's number.

    The alias ``champion`` goes to it unless the version that has it scored higher. Raises ``MlflowException``, also
    where the store has no registry.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {} if score is None else {SCORE_TAG: repr(score)}
    # By its place: a "models:/" source would be looked up in whatever store this process has set globally.
    made = client.create_model_version(
        name, logged.artifact_location, logged.source_run_id, tags, model_id=logged.model_id, await_creation_for=0
    )
    if score is not None and score >= _champions_score(client, name):
        client.set_registered_model_alias(name, CHAMPION, made.version)
    return str(made.version)


def registered_name(experiment: str, env: str, agent: str) -> str:
    """The name of the registered model of an algorithm in an environment."""
    return "-".join(part.replace("/", "-").replace(":", "-") for part in (experiment, env, agent))


def _champions_score(client: MlflowClient, name: str) -> float:
    from mlflow.exceptions import MlflowException

    try:
        champion: Any = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return float("-inf")
        raise
    return float(champion.tags.get(SCORE_TAG, "-inf"))
