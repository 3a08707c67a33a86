"""A sweep that runs on a cluster, as a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneiros.platform.cli import job_options as j
from oneiros.platform.cli import options as o
from oneiros.platform.config import ConfigError


@dataclass(frozen=True)
class SweepJob:
    """Where a sweep is sent, and what travels with it."""

    address: str
    plugins: Sequence[Path]
    ship_package: bool
    requirements: Sequence[str]
    variables: Sequence[str]
    job_id: str | None
    follow: bool

    def send(
        self,
        flags: o.Flags,
        space: Path,
        sweep_dir: Path | None,
        options: Sequence[tuple[str, Any]],
        json: Path | None,
    ) -> int:
        """Submit ``oneiros sweep`` with these flags and ``options``; raises ``ConfigError``."""
        from oneiros.platform.jobs.submission import Submission, environment_from

        if sweep_dir is None or not sweep_dir.is_absolute():
            raise ConfigError(
                "a job's own folder goes away with it: give --sweep-dir an absolute path that all hosts of the cluster "
                "see, such as /shared/runs/sweep."
            )
        words, files = j.words_of("sweep", flags)
        words += j.spelt([("--space", space.name), ("--sweep-dir", sweep_dir), *options])
        submission = Submission(
            words=tuple(words),
            files=(*files, space),
            plugins=tuple(self.plugins),
            ship_package=self.ship_package,
            requirements=tuple(self.requirements),
            environment=environment_from(self.variables),
            # The process that compares trials does next to nothing itself.
            num_cpus=0.0,
            job_id=self.job_id,
            metadata={"oneiros.run_dir": str(sweep_dir)},
        )
        return j.send(submission, self.address, str(sweep_dir), json, self.follow)
