"""Requests a second and latency of a served policy, by the number of clients that ask at the same time.

::

    python tests/benchmarks/serving.py POLICY --json tests/benchmarks/results/serving.json

Starts ``oneiros serve POLICY`` with Ray Serve and without, and asks each as fast as its clients can: every client has
a session of its own and one connection that stays open, and sends its next observation when it has the action.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oneiros.platform.bench.machine import describe
from oneiros.platform.export import load
from oneiros.platform.export.acting import nest
from oneiros.platform.export.step_format import first_step
from oneiros.platform.serving.observation_json import write

ONEIROS = os.path.join(os.path.dirname(sys.executable), "oneiros")


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    policy = load(words.policy)
    body = json.dumps({"observation": example(policy)}).encode()
    results = [
        {"engine": engine, **result}
        for engine in words.engines
        for result in measure(words.policy, engine, body, words.clients, words.seconds)
    ]
    report = {
        "what": "POST /sessions/NAME/act, one observation a request, keep-alive, each client waits for its action",
        "policy": {
            "algorithm": policy.manifest.algorithm,
            "env": policy.env,
            "parameters": sum(t.numel() for t in policy.policy.policy_state().values()),  # type: ignore[attr-defined]
            "request_bytes": len(body),
        },
        "machine": describe(torch.device("cpu")),
        "results": results,
    }
    text = json.dumps(report, indent=2) + "\n"
    print(text)
    if words.json is not None:
        words.json.write_text(text)


def example(policy: Any) -> Any:
    """An observation as JSON, in the structure of the policy's space."""
    arrays = first_step(policy)
    return write(nest((leaf, arrays[leaf.key][0]) for leaf in policy.observations.leaves))


def measure(folder: Path, engine: str, body: bytes, clients: list[int], seconds: float) -> list[dict[str, Any]]:
    """Serve ``folder`` and ask it with each number of clients in turn."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [ONEIROS, "serve", str(folder), "--port", str(port), "--engine", engine], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port, server)
        ask(port, body, 1.0)
        return [crowd(port, body, count, seconds) for count in clients]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def crowd(port: int, body: bytes, count: int, seconds: float) -> dict[str, Any]:
    """``count`` clients, each in a process of its own."""
    before = facts(port)
    with multiprocessing.get_context("fork").Pool(count) as pool:
        latencies = np.concatenate(pool.starmap(ask, [(port, body, seconds)] * count))
    after = facts(port)
    batches = after["batches"] - before["batches"]
    return {
        "clients": count,
        "requests": len(latencies),
        "requests_per_s": round(len(latencies) / seconds, 1),
        "latency_ms": {
            name: round(1000 * float(np.quantile(latencies, q)), 2) for name, q in (("p50", 0.5), ("p99", 0.99))
        },
        "mean_batch": round((after["steps"] - before["steps"]) / batches, 2),
    }


def ask(port: int, body: bytes, seconds: float) -> list[float]:
    """Step one session for ``seconds``; returns the seconds of each request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    session = request(connection, "POST", "/sessions", None)["session"]
    latencies = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        request(connection, "POST", f"/sessions/{session}/act", body)
        latencies.append(time.perf_counter() - start)
    connection.request("DELETE", f"/sessions/{session}")
    connection.getresponse().read()
    return latencies


def request(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> Any:
    """One request, which must succeed."""
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status >= 300:
        raise RuntimeError(f"{method} {path}: {response.status} {content.decode()}")
    return json.loads(content)


def facts(port: int) -> Any:
    """What the server says of itself."""
    return request(http.client.HTTPConnection("127.0.0.1", port, timeout=30), "GET", "/policy", None)


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Return once the server answers."""
    for _ in range(600):
        try:
            facts(port)
            return
        except (OSError, RuntimeError):
            # Ray's proxy listens, and knows no route, before the policy is there.
            if server.poll() is not None:
                raise RuntimeError("the server ended") from None
            time.sleep(0.2)
    raise TimeoutError("the server does not answer")


if __name__ == "__main__":
    main()
