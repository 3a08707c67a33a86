"""The same episode on a machine that lets threads wait: what each of the game's does is in its step all the same.

tests/benchmarks/luanti_repeat.py compares longer episodes, in more worlds, between processes.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oneiros.envs import registry
from oneiros.envs.luanti import installation
from oneiros.envs.minecraft.actions import NAMES

pytestmark = pytest.mark.usefixtures("engine")
JUNGLE = 3
# A thread that is woken runs a little later, and one that wakes another is stopped before it has done so.
CROWDED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <semaphore.h>
#include <stdint.h>
#include <time.h>

static uint32_t count;

static void be_late(void) {
    uint32_t number = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED) * 2654435761u;
    struct timespec time = {.tv_nsec = number >> 24 < 16 ? 3000000 : number >> 24 < 64 ? 300000 : 0};
    if (time.tv_nsec) nanosleep(&time, NULL);
}

int sem_post(sem_t *semaphore) {
    be_late();
    return ((int (*)(sem_t *))dlsym(RTLD_NEXT, "sem_post"))(semaphore);
}

int sem_wait(sem_t *semaphore) {
    int result = ((int (*)(sem_t *))dlsym(RTLD_NEXT, "sem_wait"))(semaphore);
    be_late();
    return result;
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    int result = ((int (*)(sem_t *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait"))(semaphore, until);
    if (!result) be_late();
    return result;
}
"""


def episode(steps: int) -> tuple[list[Any], int]:
    """What is observed but pictures, and how much of the map came, a step each; and how many pictures differ."""
    env = registry.make("luanti/diamond", worlds=[JUNGLE], spare=False)
    rows: list[Any] = []
    pictures = set()
    try:
        env.reset(seed=0)
        memory = env.unwrapped.instance.memory  # type: ignore[attr-defined]
        for step in range(steps):
            name = "turn_left" if step % 40 == 39 else "jump" if step % 10 == 0 else "forward"
            observation, reward, terminated, truncated, _ = env.step(np.int64(NAMES.index(name)))
            pictures.add(observation.pop("image").tobytes())
            observed = [value.tolist() for value in observation.values()]
            rows.append((observed, reward, terminated, truncated, memory.state.tolist(), memory["map_packets"]))
        return rows, len(pictures)
    finally:
        env.close()


def test_threads_that_are_late_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, pictures = episode(150)
    (tmp_path / "crowded.c").write_text(CROWDED)
    crowded = tmp_path / "crowded.so"
    compiler = installation.compiler()
    assert compiler is not None
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", crowded, tmp_path / "crowded.c", "-ldl"], check=True)
    shim = installation.shim()
    monkeypatch.setattr(installation, "shim", lambda: f"{shim}:{crowded}")
    found, _ = episode(150)
    assert [step for step in range(150) if expected[step] != found[step]] == []
    assert pictures > 50 and any(row[-1] > 0 for row in expected)
