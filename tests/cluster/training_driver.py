"""A training on the cluster, seen from outside."""

import json
import sys
import time
from pathlib import Path


class Training:
    """A driver on one of the hosts, seen through what it writes."""

    def __init__(self, network, host, folder, runners, step_ms=1.0):
        """Environments sleep for ``step_ms`` a step: those that did not would keep all processors busy."""
        self.folder = folder
        self.log = folder / "driver.log"
        self.process = host.start(
            *(sys.executable, Path(__file__).with_name("driver.py"), folder, runners, step_ms),
            log=self.log,
            RAY_ADDRESS=network.address,
        )

    def newest(self):
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        lines = [line for line in lines if line.endswith("\n")]
        return json.loads(lines[-1]) if lines else {"env_steps": 0, "updates": 0, "healthy": 0}

    def wait(self, condition, what, seconds=150):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, f"{what}: {self.newest()}\n{self.log.read_text()[-2000:]}"
            time.sleep(0.3)
        return self.newest()

    def goes_on(self, what, steps=400, seconds=150):
        """Wait until it has taken so many further steps and learnt from them."""
        before = self.newest()
        return self.wait(
            lambda: (
                self.newest()["env_steps"] > before["env_steps"] + steps
                and self.newest()["updates"] > before["updates"]
            ),
            what,
            seconds,
        )

    def end(self):
        self.process.kill()
        self.process.wait(60)
