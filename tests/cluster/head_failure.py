"""Kills Ray's head under a training, starts it again, and says how long everything took.

    python tests/cluster/head_failure.py --json tests/benchmarks/results/head-failure.json

Root, iproute2 and redis-server are needed. ``test_head.py`` does the same without keeping the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from hosts import Network
from oneiros.platform.bench.machine import describe
from oneiros.platform.checkpoint import open_checkpoint
from training_driver import Training

PATIENCE = 600.0


class Trial:
    """A head with Redis behind it, one worker host, and a training whose driver runs on that."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.worker = network.workers[0]
        self.training = Training(network, self.worker, folder, runners=2, step_ms=20.0)
        self.began = time.monotonic()
        self.events: list[dict[str, object]] = []

    def note(self, event: str) -> None:
        """Write down what has just happened, and how far the training is."""
        newest = self.training.newest()
        told = {name: newest.get(name) for name in ("env_steps", "updates", "healthy", "faults/env_runner_restarts")}
        self.events.append({"at_s": round(time.monotonic() - self.began, 1), "event": event, **told})
        print(self.events[-1], flush=True)

    def go(self) -> dict[str, object]:
        """Do it; raises ``AssertionError`` where the training does not go on."""
        training, head = self.training, self.network.head
        training.goes_on("training begins", seconds=PATIENCE)
        runners = set(self.worker.env_runners())
        self.note("training")
        head.kill()
        self.note("the head was killed")
        training.goes_on("without a head", steps=1_000, seconds=PATIENCE)
        self.note("it went on without a head")
        starts = self.start_head()
        self.note("the head knows both hosts again")
        training.goes_on("with a new head", seconds=PATIENCE)
        kept = set(self.worker.env_runners()) == runners
        self.note("it goes on with the new head")
        # Only a head that knows an actor of old can start it again.
        os.kill(min(runners), signal.SIGKILL)
        self.note("an env runner was killed")
        training.wait(
            lambda: training.newest().get("faults/env_runner_restarts", 0) >= 1 and training.newest()["healthy"] == 2,
            "the new head starts it again",
            seconds=PATIENCE,
        )
        self.note("the new head has started another")
        training.goes_on("with both runners", seconds=PATIENCE)
        training.process.send_signal(signal.SIGTERM)
        code = training.process.wait(PATIENCE)
        saved = open_checkpoint(training.folder / "checkpoint").counters
        self.note("stopped")
        return {"head_starts": starts, "runners_kept": kept, "exit_code": code, "saved": saved, "events": self.events}

    def start_head(self) -> int:
        """Start the head as systemd does (Restart=always) until it knows both hosts; returns how often it took."""
        up, starts = threading.Event(), [0]

        def keep() -> None:
            while not up.is_set():
                starts[0] += 1
                process = self.network.start_head()
                while process.poll() is None and not up.wait(0.5):
                    pass
                if not up.is_set():
                    self.network.head.kill()

        supervisor = threading.Thread(target=keep, daemon=True)
        supervisor.start()
        try:
            # Asking costs a process that imports Ray; the log says as well when there is somebody to ask.
            log, until = self.network.folder / "head.log", time.monotonic() + PATIENCE
            while log.read_text().count("Ray runtime started") < 2 and time.monotonic() < until:
                time.sleep(1.0)
            self.network.wait_for_nodes(2, PATIENCE)
        finally:
            up.set()
            supervisor.join()
        return starts[0]


def trial(folder: Path) -> dict[str, object]:
    """Do it in a network of its own, which is gone afterwards."""
    network = Network(folder)
    # A head that does not come up is started again sooner than a test's is given up.
    network.environment["RAY_raylet_start_wait_time_s"] = "45"
    try:
        network.open("left", durable=True)
        (folder / "training").mkdir()
        trial = Trial(network, folder / "training")
        try:
            return trial.go()
        finally:
            trial.training.end()
    finally:
        network.close()


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Whoever ends this must not leave a network behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        result = {"machine": describe(torch.device("cpu")), **trial(Path(folder))}
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
