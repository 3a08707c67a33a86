"""Environments that live in a process each, for those that are slow, hang, or crash."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from socket import socketpair
from typing import Any

import cloudpickle
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate
from oneiros.envs.contract import EnvironmentMistake
from oneiros.envs.options import AnyEnv
from oneiros.envs.vector.buffer import ObservationBuffer
from oneiros.envs.vector.fault import EnvironmentBroken, EnvironmentFault
from oneiros.envs.vector.slot import MOST_FAULTS, Info
from oneiros.envs.vector.sync import Flags, Numbers

CLOSE_SECONDS = 5.0
BUILD_SECONDS = 600.0


class SubprocessVector(VectorEnv[Any, Any, Any]):
    """A Gymnasium vector environment over processes; it returns what ``SyncVector`` does.

    Observations arrive through shared memory; of each info, the entries that are numbers or strings. A process that
    ends, or does not answer within ``step_timeout`` seconds (``reset_timeout`` where it resets), is replaced, and its
    environment begins a new episode: fault ``died`` or ``hang``.
    """

    def __init__(
        self,
        factory: Callable[[], AnyEnv],
        num_envs: int,
        *,
        name: str = "",
        seeds: Sequence[int] | None = None,
        step_timeout: float | None = 60.0,
        reset_timeout: float | None = 600.0,
    ) -> None:
        """``factory`` builds each copy and is pickled by value where it has to be (``cloudpickle``)."""
        self._workers: list[_Worker] = []
        if os.name != "posix":
            raise EnvironmentMistake(
                "environments in processes of their own need Linux or macOS: use vectorization sync"
            )
        self.num_envs = num_envs
        self.step_timeout = step_timeout
        self.reset_timeout = reset_timeout
        self._name = name or "the environment"
        self._pickled = cloudpickle.dumps(factory)
        self._seeds = seeds
        self._first_seeds: Sequence[int | None] | None = seeds
        self._restarts = [0] * num_envs
        self._faults_in_a_row = [0] * num_envs
        self._ended = [False] * num_envs
        directory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self._memory_file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 (closed in close_extras)
        try:
            for index in range(num_envs):
                self._workers.append(self._start(index))
            built = [self._built(index) for index in range(num_envs)]
        except BaseException:
            self.close_extras()
            raise
        observation_space, action_space, metadata, self.render_mode = built[0]
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.metadata = {**metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self._size = max(ObservationBuffer.nbytes(observation_space, num_envs), mmap.PAGESIZE)
        self._memory_file.truncate(self._size)
        memory = memoryview(mmap.mmap(self._memory_file.fileno(), self._size))
        self._buffer = ObservationBuffer(observation_space, num_envs, memory)
        for worker in self._workers:
            worker.connection.send(("memory", self._size))
        self._rewards: Numbers = np.zeros(num_envs, np.float64)
        self._terminations: Flags = np.zeros(num_envs, np.bool_)
        self._truncations: Flags = np.zeros(num_envs, np.bool_)

    @property
    def pids(self) -> list[int]:
        """The environments' process ids."""
        return [worker.process.pid for worker in self._workers]

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """Begin an episode in each, or in those that are true in ``options["reset_mask"]``, ``(N,)`` bool."""
        options = dict(options) if options else {}
        mask = options.pop("reset_mask", None)
        seeds = self._take_seeds(seed)
        indices = [index for index in range(self.num_envs) if mask is None or mask[index]]
        deadline = _deadline(self.reset_timeout)
        for index in indices:
            self._send(index, "reset", (seeds[index], options or None))
        each: list[Info] = [{}] * self.num_envs
        faults: dict[int, EnvironmentFault] = {}
        for index in indices:
            try:
                each[index], fault = self._receive(index, deadline)
            except EnvironmentFault as error:
                each[index], fault = self._replace(index, error), error
            self._ended[index] = False
            if fault is not None:
                faults[index] = fault
        return self._buffer.batch, {"each": each, "faults": faults} if faults else {"each": each}

    def step(self, actions: Any) -> tuple[Any, Numbers, Flags, Flags, Info]:
        """Execute one action in each environment, or reset it where its episode was over."""
        for index, action in enumerate(iterate(self.action_space, actions)):
            self._send(index, "step", action)
        step_deadline, reset_deadline = _deadline(self.step_timeout), _deadline(self.reset_timeout)
        each: list[Info] = []
        infos: Info = {"each": each}
        for index in range(self.num_envs):
            try:
                outcome = self._receive(index, reset_deadline if self._ended[index] else step_deadline)
                reward, terminated, truncated, info, fault = outcome
                self._faults_in_a_row[index] = 0
            except EnvironmentFault as error:
                reward, terminated, truncated, info, fault = 0.0, False, False, self._replace(index, error), error
            self._rewards[index] = reward
            self._terminations[index] = terminated
            self._truncations[index] = truncated
            self._ended[index] = terminated or truncated
            each.append(info)
            if fault is not None:
                infos.setdefault("faults", {})[index] = fault
        return self._buffer.batch, self._rewards, self._terminations, self._truncations, infos

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call each environment's method ``name``, or read its attribute of that name; what it returns is pickled."""
        return tuple(self._ask("call", [(name, args, kwargs)] * self.num_envs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Each environment's attribute ``name``."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set each environment's attribute ``name``, to one value or to a list of ``N``."""
        values = values if isinstance(values, list | tuple) else [values] * self.num_envs
        self._ask("set", [(name, value) for value in values])

    def render(self) -> tuple[Any, ...]:
        """What each environment renders."""
        return self.call("render")

    def get_states(self) -> list[dict[str, Any]] | None:
        """Each environment's state (``oneiros.envs.snapshot``), or None where one of them cannot say it, or is lost."""
        try:
            taken = self._ask("take", [None] * self.num_envs)
        except EnvironmentFault:
            return None
        if any(state is None for _, state in taken):
            return None
        return [{"ended": ended, "env": state} for ended, state in taken]

    def set_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continue from what ``get_states`` returned."""
        self._ask("restore", [(state["ended"], state["env"]) for state in states])
        self._ended = [bool(state["ended"]) for state in states]
        self._first_seeds = None

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes: first by asking, after a few seconds by force."""
        deadline = time.monotonic() + CLOSE_SECONDS
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.connection.send(("close", None))
        for worker in self._workers:
            worker.end(deadline)
        self._workers = []
        self._memory_file.close()

    def _ask(self, command: str, payloads: Sequence[Any]) -> list[Any]:
        """Everyone's answer; raises the first error, after all were heard, so that no answer is left for a step.

        A process that is lost is ended: the next step finds it so, and replaces it.
        """
        for index, payload in enumerate(payloads):
            self._send(index, command, payload)
        deadline = _deadline(self.reset_timeout)
        answers: list[Any] = []
        errors: list[Exception] = []
        for index in range(self.num_envs):
            try:
                answers.append(self._receive(index, deadline))
            except Exception as error:
                if isinstance(error, EnvironmentFault):
                    self._workers[index].end(time.monotonic())
                errors.append(error)
        if errors:
            raise errors[0]
        return answers

    def _send(self, index: int, command: str, payload: Any) -> None:
        # A process that is gone is noticed by the receive that follows.
        with contextlib.suppress(OSError):
            self._workers[index].connection.send((command, payload))

    def _receive(self, index: int, deadline: float | None) -> Any:
        """One answer; raises ``EnvironmentFault`` for ``hang`` and ``died``, and whatever else the process raised."""
        worker = self._workers[index]
        while True:
            try:
                if not worker.connection.poll(None if deadline is None else max(0.0, deadline - time.monotonic())):
                    raise EnvironmentFault(
                        "hang", f"{self._name} (process {worker.process.pid}) did not answer in time"
                    )
                kind, answer = worker.connection.recv()
            except (EOFError, OSError):
                raise EnvironmentFault("died", f"{self._name}'s process ended {worker.ending()}") from None
            if kind == "error":
                raise answer
            if kind != "resetting":
                return answer
            deadline = _deadline(self.reset_timeout)

    def _replace(self, index: int, fault: EnvironmentFault) -> Info:
        """Start the environment's process anew and begin an episode in it."""
        while True:
            self._faults_in_a_row[index] += 1
            if self._faults_in_a_row[index] >= MOST_FAULTS:
                raise EnvironmentBroken(
                    f"{self._name} lost {MOST_FAULTS} processes in a row without one good step; the last: {fault}"
                ) from fault
            self._workers[index].end(time.monotonic())
            self._restarts[index] += 1
            self._workers[index] = self._start(index)
            try:
                self._built(index)
                self._send(index, "memory", self._size)
                self._send(index, "reset", (self._restart_seed(index), None))
                info, _ = self._receive(index, _deadline(self.reset_timeout))
            except EnvironmentFault as error:
                fault = error
                continue
            return dict(info)

    def _start(self, index: int) -> _Worker:
        worker = _Worker(self._memory_file.fileno())
        worker.connection.send((self._pickled, index, self.num_envs, self._name))
        return worker

    def _built(self, index: int) -> Any:
        return self._receive(index, time.monotonic() + BUILD_SECONDS)

    def _restart_seed(self, index: int) -> int | None:
        if self._seeds is None:
            return None
        sequence = np.random.SeedSequence([self._seeds[index], self._restarts[index]])
        return int(sequence.generate_state(1)[0])

    def _take_seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if isinstance(seed, int):
            return [seed + index for index in range(self.num_envs)]
        seeds, self._first_seeds = (self._first_seeds if seed is None else seed), None
        return [None] * self.num_envs if seeds is None else seeds


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


class _Worker:
    """One process and the connection to it."""

    def __init__(self, memory_fd: int) -> None:
        ours, theirs = socketpair()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = {**os.environ, "PYTHONPATH": paths}
        environment.setdefault("OMP_NUM_THREADS", "1")
        arguments = [str(theirs.fileno()), str(memory_fd), str(os.getpid())]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "oneiros.envs.vector.worker", *arguments],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=(theirs.fileno(), memory_fd),
            )
        self.connection = Connection(ours.detach())

    def end(self, deadline: float) -> None:
        """Wait for the process until ``deadline`` (monotonic seconds), then kill it."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.connection.close()

    def ending(self) -> str:
        """How the process ended, in words."""
        try:
            code = self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return "its connection"
        return f"by signal {-code}" if code < 0 else f"with exit code {code}"
