"""``oneiros serve``."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from oneiros.platform.cli import completion

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A policy's folder, or a run's directory.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; others than 127.0.0.1 are open to the network.")] = (
        "127.0.0.1"
    ),
    checkpoint: Annotated[str, typer.Option(help="Of a run: latest, best, env steps, or a path.")] = "latest",
    max_sessions: Annotated[int, typer.Option(min=1, help="Sessions kept at most.")] = 1_000,
    idle_seconds: Annotated[float, typer.Option(min=0.1, help="When an idle session is forgotten.")] = 600.0,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads of the policy.")] = 1,
    engine: Annotated[
        str,
        typer.Option(
            help="ray (Ray Serve) or local (this process, no Ray).", autocompletion=completion.one_of("ray", "local")
        ),
    ] = "ray",
) -> None:
    """Answer with a policy over HTTP, until Ctrl-C.

    POST /sessions, then POST /sessions/NAME/act {"observation": ...} for every step; GET /policy says what an
    observation is, /docs shows all routes. There is no authentication: keep it on 127.0.0.1, or behind a proxy.
    """
    from oneiros.platform.cli.output import notes
    from oneiros.platform.config import ConfigError
    from oneiros.platform.export import load

    if engine not in ("ray", "local"):
        raise ConfigError(f"engine must be ray or local, not {engine!r} (set by --engine).")
    folder = _policy_folder(path, checkpoint)
    manifest = load(folder).manifest
    _require_free(host, port)
    if host not in LOOPBACK:
        notes.print(f"Everybody who reaches {host}:{port} can use this policy: there is no authentication.")
    house = House(folder, host, port, max_sessions, idle_seconds, threads)
    stopped = threading.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with _here(house) if engine == "local" else _on_ray(house, stopped):
            _stop_on_signals(stopped)
            notes.print(
                f"{manifest.algorithm}, {manifest.env_steps:,} env steps, answers on http://{host}:{port} "
                "(Ctrl-C ends it)."
            )
            stopped.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if engine == "ray":
        # All is closed; threads of Ray's that are left can abort a process that goes through Python's own end.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _stop_on_signals(stopped: threading.Event) -> None:
    for number in SIGNALS:
        signal.signal(number, lambda *_: stopped.set())


@dataclass(frozen=True)
class House:
    """What is served, where, and to how many."""

    folder: Path
    host: str
    port: int
    max_sessions: int
    idle_seconds: float
    threads: int


def _policy_folder(path: Path, checkpoint: str) -> Path:
    from oneiros.platform.tracking import RunDirectory

    run = RunDirectory(path)
    return run.find_checkpoint(checkpoint) if run.config_file.is_file() else path


def _require_free(host: str, port: int) -> None:
    from oneiros.platform.config import ConfigError

    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}; choose another --port.") from error


@contextmanager
def _here(house: House) -> Iterator[None]:
    import torch
    import uvicorn
    from oneiros.platform.export import load
    from oneiros.platform.serving import PolicyService
    from oneiros.platform.serving.http_app import build_app

    torch.set_num_threads(house.threads)
    service = PolicyService(load(house.folder), most_sessions=house.max_sessions, idle_seconds=house.idle_seconds)
    server = uvicorn.Server(uvicorn.Config(build_app(service), house.host, house.port, log_level="warning"))
    # Off the main thread it leaves signals alone; on it, it would raise them again when it is done.
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def _on_ray(house: House, stopped: threading.Event) -> Iterator[None]:
    import logging

    import ray
    from oneiros.platform.serving import ray_deployment

    cpus = None if "RAY_ADDRESS" in os.environ else max(os.cpu_count() or 1, house.threads)
    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, configure_logging=False)
    # Ray has just taken the signals for itself; its handler would raise in the middle of what follows.
    _stop_on_signals(stopped)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        ray_deployment.start(
            house.folder,
            host=house.host,
            port=house.port,
            most_sessions=house.max_sessions,
            idle_seconds=house.idle_seconds,
            threads=house.threads,
        )
        yield
    finally:
        ray_deployment.stop()
        ray.shutdown()
