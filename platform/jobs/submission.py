"""What a job is: the command, the files and packages that travel with it, and where it runs."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oneiros.platform.config import ConfigError
from oneiros.platform.jobs.packages import stage_own_package, stage_plugin

ENTRY = ("python", "-m", "oneiros.platform.cli")
PASSED_ON = ("MLFLOW_TRACKING_URI",)
"""Settings of this shell that hold on the cluster too. Tokens are not among them: everybody who sees the dashboard sees
a job's environment, so the cluster keeps them in its own."""


@dataclass(frozen=True)
class Submission:
    """A command of ``oneiros`` that is to run on a cluster."""

    words: tuple[str, ...]
    """The command, such as ``("train", "config.yaml", "--run-dir", "/shared/walker")``; files by their bare names."""
    files: tuple[Path, ...] = ()
    """Files that the command names: they lie in its working directory."""
    plugins: tuple[Path, ...] = ()
    ship_package: bool = False
    requirements: tuple[str, ...] = ()
    """What pip installs for the job on every host, as the plugins' dependencies."""
    environment: Mapping[str, str] = field(default_factory=dict)
    num_cpus: float = 1.0
    """Processors that are reserved for the command itself, which learns where there are no learner processes."""
    num_gpus: float = 0.0
    grace_s: int = 60
    """Seconds that a stopped job gets to save; Ray alone would give it three."""
    job_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def entrypoint(self) -> str:
        """The command as the cluster's shell reads it."""
        return shlex.join([*ENTRY, *self.words])

    def stage(self, folder: Path) -> dict[str, Any]:
        """Lay everything that travels into ``folder`` and return Ray's runtime environment; raises ``ConfigError``."""
        working = folder / "working"
        working.mkdir(parents=True)
        names = [file.name for file in self.files]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"two files are called {twice[0]}: rename one, they travel into one folder.")
        for file in self.files:
            if not file.is_file():
                raise ConfigError(f"configuration file {file} does not exist.")
            shutil.copyfile(file, working / file.name)
        modules = stage_own_package(folder / "own") if self.ship_package else []
        for index, plugin in enumerate(self.plugins):
            modules += stage_plugin(plugin, folder / f"plugin-{index}")
        # Ray's Jobs API takes folders only; single files lie in the working directory, which is on the path as well.
        for module in modules:
            if module.is_file():
                shutil.copyfile(module, working / module.name)
        environment: dict[str, Any] = {
            "working_dir": str(working),
            "env_vars": {
                "RAY_JOB_STOP_WAIT_TIME_S": str(self.grace_s),
                "PYTHONUNBUFFERED": "1",
                **{name: os.environ[name] for name in PASSED_ON if _reaches(os.environ.get(name))},
                **self.environment,
            },
        }
        if packages := [str(path) for path in modules if path.is_dir()]:
            environment["py_modules"] = packages
        if self.requirements:
            environment["pip"] = list(self.requirements)
        return environment


def environment_from(words: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` as said, ``NAME`` from this shell; raises ``ConfigError`` for a name that is not set here."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name not in os.environ:
            raise ConfigError(f"--env {name}: it is not set here; say --env {name}=VALUE.")
        found[name] = value if equals else os.environ[name]
    return found


def _reaches(uri: str | None) -> bool:
    """Whether another host can use it: a server can be reached, a file cannot."""
    return uri is not None and uri.startswith(("http://", "https://"))
