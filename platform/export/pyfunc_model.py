"""The code of the MLflow model: MLflow copies this file beside the policy folder and runs it to load the model.

No class of it is ever pickled. See ``mlflow_model`` for what goes in and what comes out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from oneiros.platform.export import load
from oneiros.platform.export.step_format import IS_FIRST, read_step, write_step


class PolicyModel(PythonModel):
    """One policy step: observations and the state before in, actions and the state after out."""

    # MLflow takes a type hint of predict's input for the signature, and knows none for named tensors. There is none,
    # then, and it is not to ask for one after every training.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Load the policy folder that lies in the model."""
        self.policy = load(context.artifacts["policy"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Act for ``N`` environments; ``params["mode"]`` is ``eval`` (the best action) or ``train`` (a sample)."""
        mode = (params or {}).get("mode", "eval")
        if mode not in ("eval", "train"):
            raise MlflowException.invalid_parameter_value(f"mode must be eval or train, not {mode!r}.")
        observation, state = read_step(self.policy, model_input)
        first = np.asarray(model_input[IS_FIRST], bool)
        return write_step(*self.policy.act_by_key(observation, state, first, mode))


set_model(PolicyModel())
