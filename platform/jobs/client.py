"""A cluster's jobs, through Ray's Jobs API, whose failures become sentences."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from oneiros.platform.config import ConfigError
from oneiros.platform.jobs.submission import Submission

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
HEADERS_VARIABLE = "RAY_JOB_HEADERS"
"""The variable that Ray's own command reads headers from, as JSON: for a proxy that wants a token of its own."""

Result = TypeVar("Result")

_CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")


class JobsUnavailable(RuntimeError):
    """The cluster's Jobs API does not answer, or refuses."""


class UnknownJob(ValueError):
    """There is no such job."""


@dataclass(frozen=True)
class Job:
    """A job as the cluster knows it."""

    id: str
    status: str
    """``PENDING``, ``RUNNING``, ``STOPPED``, ``SUCCEEDED`` or ``FAILED``."""
    entrypoint: str
    run_dir: str | None
    started: str | None
    ended: str | None
    exit_code: int | None
    message: str | None

    @property
    def over(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    @classmethod
    def of(cls, details: JobDetails) -> Job:
        """Take what matters out of Ray's description."""
        metadata = details.metadata or {}
        return cls(
            id=details.submission_id or details.job_id or "",
            status=str(details.status.value),
            entrypoint=details.entrypoint,
            run_dir=metadata.get("oneiros.run_dir"),
            started=_when(details.start_time),
            ended=_when(details.end_time),
            exit_code=details.driver_exit_code,
            message=details.message,
        )


class Jobs:
    """The jobs of the cluster whose dashboard is at ``address``.

    A token is sent where Ray is told to use one (``RAY_AUTH_MODE=token`` with ``RAY_AUTH_TOKEN`` or
    ``RAY_AUTH_TOKEN_PATH``), other headers where ``RAY_JOB_HEADERS`` holds them.
    """

    def __init__(self, address: str | None = None) -> None:
        """Raises ``ConfigError`` for an address that is none, and ``JobsUnavailable``."""
        self.address = find_address(address)
        headers = _headers()
        self._client = self._asking(lambda: self._connect(headers))

    def _connect(self, headers: dict[str, str] | None) -> JobSubmissionClient:
        from ray.job_submission import JobSubmissionClient

        # They tell of every file that is uploaded and of every connection that is closed.
        for chatty in _CHATTY:
            logging.getLogger(chatty).setLevel(logging.WARNING)
        return JobSubmissionClient(self.address, headers=headers)

    def submit(self, submission: Submission) -> str:
        """Ship ``submission`` and return the id of its job."""
        with tempfile.TemporaryDirectory(prefix="oneiros-job-") as folder:
            environment = submission.stage(Path(folder))
            return self._asking(
                lambda: self._client.submit_job(
                    entrypoint=submission.entrypoint,
                    runtime_env=environment,
                    submission_id=submission.job_id,
                    metadata=dict(submission.metadata),
                    entrypoint_num_cpus=submission.num_cpus,
                    entrypoint_num_gpus=submission.num_gpus,
                )
            )

    def list(self) -> list[Job]:
        """Every job that was submitted, the newest first; drivers that connected by themselves are none."""
        found = [details for details in self._asking(self._client.list_jobs) if details.submission_id]
        return [Job.of(details) for details in sorted(found, key=lambda one: one.start_time or 0, reverse=True)]

    def status(self, job_id: str) -> Job:
        """The job of that id; raises ``UnknownJob``."""
        return Job.of(self._asking(lambda: self._client.get_job_info(job_id), job_id))

    def logs(self, job_id: str) -> str:
        """What the job has printed so far."""
        return self._asking(lambda: self._client.get_job_logs(job_id), job_id)

    def follow(self, job_id: str) -> Iterator[str]:
        """What the job has printed and goes on to print, piece by piece, until it ends."""
        self.status(job_id)
        loop = asyncio.new_event_loop()
        pieces = self._client.tail_job_logs(job_id)
        try:
            while True:
                try:
                    yield self._asking(lambda: loop.run_until_complete(anext(pieces)), job_id)
                except StopAsyncIteration:
                    return
        finally:
            with suppress(Exception):
                loop.run_until_complete(pieces.aclose())  # type: ignore[attr-defined]
            loop.close()

    def stop(self, job_id: str) -> bool:
        """Ask the job to end, as Ctrl-C would; False when it had ended already."""
        return self._asking(lambda: self._client.stop_job(job_id), job_id)

    def _asking(self, ask: Callable[[], Result], job_id: str | None = None) -> Result:
        """Ask the cluster; what goes wrong becomes ``UnknownJob``, ``ConfigError`` or ``JobsUnavailable``."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            return ask()
        except AuthenticationError as error:
            raise JobsUnavailable(
                f"the cluster at {self.address} wants another token ({str(error).splitlines()[0].rstrip('.')}): set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
            ) from error
        except (ConnectionError, requests.exceptions.RequestException) as error:
            raise JobsUnavailable(
                f"no Ray dashboard answers at {self.address}: start the cluster, or name another --address."
            ) from error
        except RuntimeError as error:
            text = str(error)
            if job_id is not None and "status code 404" in text:
                raise UnknownJob(f"job {job_id!r} is unknown at {self.address} ('oneiros jobs' lists them).") from error
            if "already exists" in text:
                raise ConfigError("a job of that id exists already: choose another --job-id.") from error
            raise JobsUnavailable(f"the cluster at {self.address} refuses: {_first_line(text)}.") from error


def find_address(address: str | None) -> str:
    """``address``, else what Ray's variables name, else this machine's dashboard; raises ``ConfigError``."""
    variables = [os.environ.get(name) for name in ADDRESS_VARIABLES]
    named = address or next((value for value in variables if value and "://" in value), DEFAULT_ADDRESS)
    if not named.startswith(("http://", "https://")):
        raise ConfigError(f"the address must be a Ray dashboard's, such as http://HEAD:8265, not {named!r}.")
    return named.rstrip("/")


def _headers() -> dict[str, str] | None:
    text = os.environ.get(HEADERS_VARIABLE)
    if not text:
        return None
    try:
        headers = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{HEADERS_VARIABLE} is not JSON: {error}.") from error
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ConfigError(f'{HEADERS_VARIABLE} must hold headers, such as {{"Authorization": "Bearer ..."}}.')
    return headers


def _when(milliseconds: int | None) -> str | None:
    return None if not milliseconds else f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M:%S}"


def _first_line(text: str) -> str:
    """The line of a traceback or an answer that says what happened."""
    lines = [line.strip() for line in text.replace("\\n", "\n").splitlines() if line.strip()]
    return (lines[-1] if lines and lines[0].startswith(("Request failed", "Traceback")) else lines[0] if lines else "")[
        :300
    ].rstrip(".")
