"""The policy service as a Ray Serve deployment: its health, restarts and logs are Ray's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oneiros.platform.export import load
from oneiros.platform.serving.http_app import build_app
from oneiros.platform.serving.service import PolicyService
from ray import serve

NAME = "oneiros"
MOST_ONGOING = 512


class PolicyServer:
    """One replica: it holds the sessions, so there is exactly one. A restarted one has forgotten them (404)."""

    def __init__(self, folder: str, most_sessions: int, idle_seconds: float, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.service = PolicyService(load(Path(folder)), most_sessions=most_sessions, idle_seconds=idle_seconds)

    def __serve_build_asgi_app__(self) -> Any:
        return build_app(self.service)


def application(folder: Path, *, most_sessions: int, idle_seconds: float, threads: int = 1) -> serve.Application:
    """The Serve application of the policy in ``folder``, which the host of the replica must see."""
    deployment: Any = serve.deployment(
        serve.ingress()(PolicyServer),
        name=NAME,
        num_replicas=1,
        max_ongoing_requests=MOST_ONGOING,
        ray_actor_options={"num_cpus": threads},
    )
    bound: serve.Application = deployment.bind(str(folder.resolve()), most_sessions, idle_seconds, threads)
    return bound


def start(folder: Path, *, host: str, port: int, most_sessions: int, idle_seconds: float, threads: int = 1) -> None:
    """Serve the policy in ``folder`` on ``http://host:port``; returns once it answers. Ray is to be initialised."""
    serve.start(http_options={"host": host, "port": port})
    serve.run(
        application(folder, most_sessions=most_sessions, idle_seconds=idle_seconds, threads=threads),
        name=NAME,
        route_prefix="/",
        logging_config={"enable_access_log": False},
    )


def stop() -> None:
    """End the application and Serve."""
    serve.shutdown()
