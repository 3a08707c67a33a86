"""Policies that left training: folders of safetensors and JSON that act without Ray, MLflow or a replay."""

from oneiros.platform.export.acting import ExportedPolicy, load
from oneiros.platform.export.policy_folder import ExportError, export_policy

__all__ = ["ExportError", "ExportedPolicy", "export_policy", "load"]
