"""Trains for an hour while everything around it breaks, and says whether anything grows or is left behind.

    python tests/benchmarks/soak.py --minutes 60 --json tests/benchmarks/results/soak.json

'oneiros train' with env runners and two learner processes is driven as a user would drive it. Env runners and learners
are killed (SIGKILL), runners are stopped (SIGSTOP), chunk files on disk are damaged, MLflow's server goes away, the
driver is killed and resumed, and the environments hang, raise, and return NaN and wrong shapes by themselves.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from oneiros.platform.bench.machine import describe
from oneiros.platform.tracking import read_metrics
from soak_processes import Processes, lives
from soak_verdict import verdict

HERE = Path(__file__).resolve().parent
ONEIROS = Path(sys.executable).with_name("oneiros")
MLFLOW = Path(sys.executable).with_name("mlflow")
SETTINGS = {
    "size": "1m", "deter": 32, "hidden": 16, "groups": 4, "classes": 4, "units": 16, "depth": 2, "batch_size": 2,
    "batch_length": 8, "imagination_length": 3, "warmup": 0, "learning_rate": 1e-3, "precision": "float32",
    "compile": "off", "train_ratio": 0.5, "learning_starts": 200, "num_runners": 2, "num_learners": 2,
    "num_envs_per_runner": 2, "seed": 1, "env_steps": 10**12, "replay.capacity": 20_000,
    "env_options.step_ms": 10, "env_options.hangs": 2e-5, "env_options.raises": 2e-4, "env_options.nan": 2e-4,
    "env_options.shape": 1e-4, "checkpoint.every_seconds": 60, "evaluation.at_end": False,
    "evaluation.every_env_steps": 20_000, "evaluation.episodes": 4, "tracking.every_seconds": 2,
    "tracking.model": None, "tracking.checkpoint": None,
    "fault_tolerance.env_runner_timeout_s": 30, "fault_tolerance.recovery_interval_s": 30,
    "fault_tolerance.learner_timeout_s": 120,
}  # fmt: skip
SAMPLE_SECONDS = 10.0
SAMPLES_A_LIST = 6
"""After so many samples it is written down which files are open."""
SECONDS_TO_RECOVER = 600.0
"""Beyond which a fault counts as not recovered from."""
MOST_UNEXPECTED = 20
DRIVER_DEATHS = (0.13, 0.27)
"""When the driver is killed, as shares of the whole time: the last life is long enough to see something grow."""
FAULTS = {"kill_runner": 4, "kill_all_runners": 1, "stop_runner": 1, "kill_learner": 2, "damage_chunks": 1, "mlflow": 1}
"""What is done, and how often compared with the others."""


class Soak:
    """One run of it."""

    def __init__(self, folder: Path, minutes: float, seed: int) -> None:
        self.run = folder / "run"
        self.log = folder / "oneiros.log"
        self.minutes = minutes
        self.rng = random.Random(seed)
        self.began = time.monotonic()
        self.processes = Processes()
        self.life = 0
        self.done: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.held: list[dict[str, Any]] = []
        self.unexpected: list[str] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.server = self.start_server()
        self.server_back_at: float | None = None
        self.driver = self.start_driver("train", "soak_env:Soak-v0", "--run-dir", str(self.run), *_flags())

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    # ---- processes ---------------------------------------------------------------------------------------------------

    def start_server(self) -> subprocess.Popen[bytes]:
        """MLflow's, always on the same port."""
        words = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--artifacts-destination", self.folder]
        with (self.folder / "mlflow.log").open("ab") as log:
            environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            return subprocess.Popen(
                [MLFLOW, *words, *store], stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def start_driver(self, *words: str) -> subprocess.Popen[bytes]:
        """'oneiros', with what it prints in a file."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}",
            "OMP_NUM_THREADS": "1",
        }
        self.life += 1
        self.life_began = self.age
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [ONEIROS, *words], stdout=log, stderr=log, env=environment, start_new_session=True, cwd=self.folder
            )

    def newest(self) -> dict[str, Any]:
        """The last whole row of metrics."""
        file = self.run / "metrics.jsonl"
        if not file.exists():
            return {}
        with file.open("rb") as rows:
            rows.seek(max(0, file.stat().st_size - 50_000))
            lines = rows.read().split(b"\n")[:-1]
        return json.loads(lines[-1]) if lines else {}

    # ---- faults ------------------------------------------------------------------------------------------------------

    def kill_runner(self) -> bool:
        """One env runner."""
        return self._signal(self.processes.of("runner")[:1], signal.SIGKILL)

    def kill_all_runners(self) -> bool:
        """Every env runner at once."""
        return self._signal(self.processes.of("runner"), signal.SIGKILL)

    def stop_runner(self) -> bool:
        """An env runner that says nothing any more, and holds on to everything it has."""
        return self._signal(self.processes.of("runner")[:1], signal.SIGSTOP)

    def kill_learner(self) -> bool:
        """One of the two learners."""
        return self._signal(self.processes.of("learner")[:1], signal.SIGKILL)

    def damage_chunks(self) -> bool:
        """Bytes of a chunk of either learner change on the disk, and one is cut short, while nobody has them open."""
        learners = self.processes.of("learner")
        if not self._signal(learners, signal.SIGSTOP):
            return False
        for number, shard in enumerate(sorted((self.run / "replay").glob("shard-*"))):
            self._damage(shard, cut=number == 0)
        return self._signal(learners, signal.SIGKILL)

    def mlflow(self) -> bool:
        """MLflow's server is gone for a minute or two."""
        if self.server_back_at is not None:
            return False
        _end(self.server)
        self.server_back_at = self.age + self.rng.uniform(60, 120)
        return True

    def kill_driver(self) -> bool:
        """The process that the user started; nothing that it started may outlive it. Then: 'oneiros resume'."""
        if not (self.run / "checkpoints").is_dir():
            return False
        before = list(self.processes.known)
        self.driver.kill()
        self.driver.wait(60)
        until = time.monotonic() + 60
        while (left := [process for process in before if lives(process)]) and time.monotonic() < until:
            time.sleep(0.5)
        if left:
            self.unexpected.append(f"outlived the driver: {[process.pid for process in left]}")
        for shard in sorted((self.run / "replay").glob("shard-*")):
            self._damage(shard, cut=False)
        self.processes.forget()
        self.driver = self.start_driver("resume", str(self.run))
        return True

    def _signal(self, processes: list[psutil.Process], number: int) -> bool:
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                return False
        return bool(processes)

    def _damage(self, shard: Path, cut: bool) -> None:
        chunks = sorted(shard.glob("chunk-*.rows"))[:-4]
        if not chunks:
            return
        chunk = self.rng.choice(chunks)
        size = chunk.stat().st_size
        if cut:
            os.truncate(chunk, size // 2)
            return
        with chunk.open("r+b") as file:
            file.seek(size // 2)
            there = file.read(64)
            file.seek(size // 2)
            file.write(bytes(255 - byte for byte in there))

    # ---- the hour ----------------------------------------------------------------------------------------------------

    def go(self) -> dict[str, Any]:
        """Do all of it and return what came of it."""
        self._recovered("start", self.age, {}, self.life)
        deaths = [share * self.minutes * 60 for share in DRIVER_DEATHS]
        while self.age < self.minutes * 60:
            self._rest(self.rng.uniform(15, 40))
            if deaths and self.age > deaths[0]:
                deaths.pop(0)
                self._break("kill_driver", self.kill_driver)
            else:
                (name,) = self.rng.choices(list(FAULTS), list(FAULTS.values()))
                self._break(name, getattr(self, name))
        return self._finish()

    def _break(self, name: str, action: Callable[[], bool]) -> None:
        before, at, life = self.newest(), self.age, self.life
        if action():
            self._recovered(name, at, before, life)

    def _recovered(self, name: str, at: float, before: dict[str, Any], life: int) -> None:
        """Wait until steps are taken and learnt from again, by as many processes as there should be."""
        seen = self.newest().get("env_steps", 0)
        updated: float | None = None
        while (taken := self.age - at) < SECONDS_TO_RECOVER:
            self._rest(1.0)
            now = self.newest()
            if updated is None and now.get("env_steps", 0) > max(seen, before.get("env_steps", 0)) + 200:
                updated = now.get("updates", 0.0)
            learnt = updated is not None and now.get("updates", 0.0) > updated
            whole = len(self.processes.of("runner")) >= 2 and len(self.processes.of("learner")) >= 2
            if learnt and whole and (name != "stop_runner" or now.get("faults/env_runners_hung", 0) > 0):
                self.done.append({"fault": name, "at_s": round(at), "recovered_s": round(taken, 1)})
                print(f"{at:6.0f} s  {name}: recovered in {taken:.0f} s", flush=True)
                return
        self.done.append({"fault": name, "at_s": round(at), "recovered_s": None})
        self.unexpected.append(f"{name} at {at:.0f} s: not recovered in {SECONDS_TO_RECOVER:.0f} s")
        print(self.unexpected[-1], flush=True)

    def _rest(self, seconds: float) -> None:
        """Wait, and meanwhile sample, bring MLflow back, and resume a driver that has ended by itself."""
        until = self.age + seconds
        while True:
            if self.server_back_at is not None and self.age > self.server_back_at:
                self.server, self.server_back_at = self.start_server(), None
            if (code := self.driver.poll()) is not None:
                said = self.log.read_text(errors="replace")[-1500:]
                self.unexpected.append(f"the driver ended with {code} at {self.age:.0f} s: {said}")
                print(self.unexpected[-1], flush=True)
                if len(self.unexpected) > MOST_UNEXPECTED:
                    raise RuntimeError("the driver does not stay up")
                self.driver = self.start_driver("resume", str(self.run))
            self.processes.look(self.driver.pid)
            if not self.samples or self.age - self.samples[-1]["at_s"] >= SAMPLE_SECONDS:
                self._sample()
            if self.age >= until:
                return
            time.sleep(min(1.0, max(0.0, until - self.age)))

    def _sample(self) -> None:
        metrics = self.newest()
        sample = {"at_s": round(self.age, 1), "life": self.life, "life_s": round(self.age - self.life_began, 1)}
        sample |= self.processes.sample()
        sample["shm_mb"] = round(psutil.disk_usage("/dev/shm").used / 2**20, 1)
        sample["run_mb"] = round(sum(f.stat().st_size for f in self.run.rglob("*") if f.is_file()) / 2**20, 1)
        sample |= {name: metrics.get(name, 0) for name in ("env_steps", "updates", "replay/rows")}
        self.samples.append(sample)
        if len(self.samples) % SAMPLES_A_LIST == 0:
            self.held.append({"at_s": sample["at_s"], "life": self.life, "files": self.processes.held()})

    def _finish(self) -> dict[str, Any]:
        """SIGTERM, and then nothing may be left."""
        metrics = self.newest()
        began, when = time.monotonic(), time.time()
        self.driver.send_signal(signal.SIGTERM)
        code = self.driver.wait(180)
        ended = time.monotonic() - began
        saved = max((path.stat().st_mtime for path in (self.run / "checkpoints").glob("*/manifest.json")), default=0.0)
        time.sleep(5.0)
        left = [process for process in self.processes.known if lives(process)]
        steps = [row["env_steps"] for row in read_metrics(self.run / "metrics.jsonl") if "updates" in row]
        _end(self.server)
        recovered: dict[str, list[float]] = {}
        for fault in self.done:
            recovered.setdefault(fault["fault"], []).append(fault["recovered_s"])
        return {
            "minutes": round(self.age / 60, 1),
            "injected": dict(Counter(fault["fault"] for fault in self.done)),
            "recovered_median_s": {
                name: statistics.median(seconds for seconds in taken if seconds is not None)
                for name, taken in recovered.items()
                if any(seconds is not None for seconds in taken)
            },
            "unexpected": self.unexpected,
            "exit_code_on_sigterm": code,
            "seconds_to_save": round(saved - when, 1),
            "seconds_to_save_and_exit": round(ended, 1),
            "processes_left": [process.pid for process in left],
            "records_in_order": all(one < other for one, other in itertools.pairwise(steps)),
            "counted": {name: value for name, value in metrics.items() if name.startswith("faults/") and value},
            "quarantined_now": metrics.get("replay/quarantined", 0),
            "env_steps": metrics.get("env_steps"),
            "updates": metrics.get("updates"),
            "verdict": verdict(self.samples, self.life),
            "faults": self.done,
            "samples": self.samples,
            "held": self.held,
        }


def _flags() -> list[str]:
    return [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={json.dumps(value)}")]


def _end(server: subprocess.Popen[bytes]) -> None:
    """Kill MLflow's server with its workers."""
    for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
        process.kill()
    server.wait(60)


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the run lies; by default a temporary one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Whoever ends this must not leave a cluster behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        soak = Soak(folder, options.minutes, options.seed)
        try:
            result = soak.go()
        finally:
            for process in filter(lives, soak.processes.known):
                process.kill()
            if soak.server.poll() is None:
                _end(soak.server)
    result = {"machine": describe(torch.device("cpu")), "settings": SETTINGS, "seed": options.seed, **result}
    print(
        json.dumps({key: value for key, value in result.items() if key not in ("samples", "faults", "held")}, indent=1)
    )
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
