"""Three hosts on one machine: network namespaces with an address each, joined by a switch, each running Ray."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

FAKES = Path(__file__).resolve().parent.parent / "platform/fakes"
BIN = Path(sys.executable).parent
PORT = 6379
AGENT_PORTS = {"dashboard-agent-grpc-port": 20366, "runtime-env-agent-port": 20367, "metrics-export-port": 20368}
"""Agents that choose their ports have 15 seconds to say which, or Ray gives the node up (ray-project/ray#65983)."""
HIDDEN = "aiohttp_cors"
"""Without this library Ray starts its agents without what dashboards ask them, in much less than 15 seconds."""
FAST_DETECTION = {
    # A host that is gone is noticed in seconds, not in the half minute that suits real networks.
    "RAY_health_check_initial_delay_ms": "15000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
}


def ip(*words: str) -> str:
    ran = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"ip {' '.join(words)}: {ran.stderr}"
    return ran.stdout


class Host:
    """A namespace with an address of its own, which can be cut off, killed, and started again."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.network = network
        self.name = name
        self.namespace = f"{network.prefix}-{name}"
        self.address = f"10.77.{network.subnet}.{number}"
        self.own = network.short.with_name(f"{network.short.name}-{name}")
        self._cable = f"v{network.prefix[-6:]}{number}"
        ip("netns", "add", self.namespace)
        ip("link", "add", self._cable, "netns", network.switch, "type", "veth", "peer", "eth0", "netns", self.namespace)
        ip("-n", network.switch, "link", "set", self._cable, "master", "bridge", "up")
        ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        ip("-n", self.namespace, "link", "set", "lo", "up")

    def command(self, *words: object) -> list[str]:
        """What runs ``words`` on this host: with its network, and with a folder for Ray's files that no other sees."""
        self.own.mkdir(exist_ok=True)
        mounted = ["sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(self.own), str(self.network.short)]
        return ["ip", "netns", "exec", self.namespace, *mounted, *map(str, words)]

    def start(self, *words: object, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Run a command on this host."""
        with log.open("ab") as file:
            return subprocess.Popen(
                self.command(*words),
                stdout=file,
                stderr=file,
                env=self.network.environment | {"HOST_ADDRESS": self.address} | environment,
                start_new_session=True,
            )

    def ray(self, *words: object) -> subprocess.Popen[bytes]:
        """Start Ray's node here, in the foreground of a process of its own."""
        log = self.network.folder / f"{self.name}.log"
        options = ["--block", f"--node-ip-address={self.address}", "--object-store-memory=80000000", *words]
        options += ["--include-log-monitor=false", *(f"--{name}={port}" for name, port in AGENT_PORTS.items())]
        return self.start(
            BIN / "ray", "start", "--disable-usage-stats", *options, log=log, **self.network.answered(self)
        )

    def cut(self) -> None:
        """Pull the cable."""
        ip("-n", self.network.switch, "link", "set", self._cable, "down")

    def plug(self) -> None:
        """Put the cable back."""
        ip("-n", self.network.switch, "link", "set", self._cable, "up")

    def processes(self) -> list[int]:
        return [int(word) for word in ip("netns", "pids", self.namespace).split()]

    def env_runners(self) -> list[int]:
        """Processes here that step environments."""
        found = []
        for pid in self.processes():
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
            except FileNotFoundError:
                continue
            if b"WorldModelEnvRunner" in title:
                found.append(pid)
        return found

    def kill(self) -> None:
        """The power fails."""
        for _ in range(100):
            left = self.processes()
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if not left:
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.name} still runs {left}")


class Network:
    """A switch, a head and two workers; everything is taken down by ``close``, whatever happened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = f"onr{os.getpid()}"
        self.subnet = os.getpid() % 250
        self.switch = f"{self.prefix}-switch"
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        # Unix sockets have short names: pytest's folders are too deep.
        self.short = Path("/tmp") / self.prefix
        self.short.mkdir()
        lean = folder / "lean"
        lean.mkdir()
        (lean / f"{HIDDEN}.py").write_text("raise ModuleNotFoundError('hidden: Ray does without')\n")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        self.environment = {
            **inherited,
            **FAST_DETECTION,
            "PYTHONPATH": os.pathsep.join([str(FAKES), str(lean)]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_raylet_start_wait_time_s": "120",
            "OMP_NUM_THREADS": "1",
        }
        self.hosts: list[Host] = []
        self.store: Host | None = None

    def open(self, *workers: str, durable: bool = False) -> None:
        """Start the head and the workers of these names; a durable head keeps what it knows on another host."""
        # The switch has a namespace of its own, where no firewall of this machine's looks at what it passes on.
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        if durable:
            self._add_store()
        for number, name in enumerate(("head", *workers), 1):
            self.hosts.append(Host(self, name, number))
        self.start_head()
        self.wait_for_nodes(1)
        for worker in self.workers:
            self.join(worker)
        self.wait_for_nodes(1 + len(workers))

    def _add_store(self) -> None:
        """Add a host with Redis, for the head as deploy/ray/start-head.sh starts it."""
        self.store = Host(self, "store", 99)
        password, data = secrets.token_hex(16), self.folder / "redis"
        data.mkdir()
        words = ["--bind", self.store.address, "--dir", data, "--appendonly", "yes", "--requirepass", password]
        self.store.start("redis-server", *words, log=self.folder / "redis.log")
        self.environment |= {
            "RAY_REDIS_ADDRESS": f"{self.store.address}:{PORT}",
            "RAY_REDIS_PASSWORD": password,
            "RAY_external_storage_namespace": "oneiros",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        }

    def start_head(self) -> subprocess.Popen[bytes]:
        # Ray looks for a head at this address among all processes of the machine, and finds those of the workers.
        (self.head.own / "ray_current_cluster").unlink(missing_ok=True)
        password = self.environment.get("RAY_REDIS_PASSWORD")
        words = ["--head", f"--port={PORT}", "--num-cpus=0", "--no-monitor", "--include-dashboard=false"]
        words.append(f"--temp-dir={self.short}")
        return self.head.ray(*words, *([f"--redis-password={password}"] if password else []))

    def answered(self, host: Host) -> dict[str, str]:
        """A name for the host's next node, and the answer that its agent owes within 15 seconds: no dashboard's port.

        How fast a busy machine imports an agent is not what tests are about. Before the first head there is no place.
        """
        sessions = sorted(self.head.own.glob("session_2*"))
        if not sessions:
            return {}
        node, place = secrets.token_hex(28), host.own / sessions[-1].name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"dashboard_agent_listen_port_{node}").write_text("-1")
        return {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": node}

    def join(self, worker: Host) -> None:
        worker.ray(f"--address={self.address}", "--num-cpus=2")

    @property
    def head(self) -> Host:
        return self.hosts[0]

    @property
    def address(self) -> str:
        """Where Ray's head is asked."""
        return f"{self.head.address}:{PORT}"

    @property
    def workers(self) -> list[Host]:
        return self.hosts[1:]

    def wait_for_nodes(self, count: int, seconds: float = 120) -> None:
        """Wait until Ray's head says that so many hosts are alive."""
        code = (
            "import ray, sys\n"
            f"ray.init('{self.address}', log_to_driver=False, logging_level='ERROR')\n"
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        deadline = time.monotonic() + seconds
        said = ""
        while time.monotonic() < deadline:
            command = self.head.command(sys.executable, "-c", code)
            try:
                ran = subprocess.run(
                    command, env=self.environment, capture_output=True, text=True, check=False, timeout=60
                )
            except subprocess.TimeoutExpired:
                said = "the head does not answer"
                continue
            said = ran.stdout.strip() or ran.stderr[-500:]
            if ran.returncode == 0 and said.split()[-1] == str(count):
                return
            time.sleep(1.0)
        found = [*self.folder.glob("*.log"), *self.short.parent.glob(f"{self.short.name}-*/session_2*/logs/raylet.out")]
        logs = "\n".join(f"{path}\n{path.read_text()[-1500:]}" for path in found)
        raise AssertionError(f"not {count} hosts after {seconds} s: {said}\n{logs}")

    def close(self) -> None:
        hosts = [*self.hosts, *([self.store] if self.store else [])]
        for host in hosts:
            host.kill()
        for namespace in [*(host.namespace for host in hosts), self.switch]:
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)
        for folder in self.short.parent.glob(f"{self.short.name}*"):
            shutil.rmtree(folder, ignore_errors=True)
