"""The same episode on a machine that lets threads wait: what each of the game's does is in its step all the same.

tests/benchmarks/luanti_repeat.py compares longer episodes, in more worlds, between processes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
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


ORDER = '''
import ctypes, sys
lua = ctypes.CDLL(sys.argv[1])
lua.luaL_newstate.restype = lua.lua_tolstring.restype = ctypes.c_void_p
state = ctypes.c_void_p(lua.luaL_newstate())
lua.luaL_openlibs(state)
lua.luaL_loadstring(state, b"""
local names, objects, order = {}, {}, {}
for i = 1, 60 do names["default:node_" .. i], objects[{}] = i, i end
for _, i in pairs(names) do order[#order + 1] = i end
for _, i in pairs(objects) do order[#order + 1] = i end
return table.concat(order, " ")
""")
assert lua.lua_pcall(state, 0, 1, 0) == 0
print(ctypes.string_at(lua.lua_tolstring(state, -1, None)).decode())
'''


def test_scripts_go_through_their_tables_in_the_same_order_in_every_process() -> None:
    program = installation.program("minetest")
    assert program is not None
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    found = re.search(r"libluajit\S+ => (\S+)", linked)
    if found is None:
        pytest.skip("this Luanti has its Lua inside")
    words = [sys.executable, "-c", ORDER, found.group(1)]
    # As the game has it.
    preloaded = {**os.environ, "LD_PRELOAD": str(installation.shim()), "ONEIROS_LUANTI_MEMORY": "-1"}
    orders = [subprocess.run(words, env=preloaded, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    assert sorted(map(int, orders[0].split())) == sorted([*range(1, 61)] * 2)
    assert orders[0] == orders[1] == orders[2]
