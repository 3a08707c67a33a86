"""Environments of the old gym API, in plain Python with numpy: what MineRL's process runs in these tests.

They look like MineRL's to whoever asks over the wire. Each number and picture here is made up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np


class Box:
    def __init__(self, low, high, shape, dtype):
        self.low, self.high = np.full(shape, low, dtype), np.full(shape, high, dtype)
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)


class Discrete:
    def __init__(self, n):
        self.n = n


class Enum(Discrete):
    def __init__(self, *values):
        super().__init__(len(values))
        self.values = np.array(sorted(values))

    def no_op(self):
        return "none"


class Dict:
    def __init__(self, **spaces):
        self.spaces = spaces


ITEMS = ("air", "log", "log2", "planks", "stick", "crafting_table", "wooden_pickaxe", "cobblestone", "diamond")


class Diamond:
    """Attacking yields logs of both kinds in turn; each command yields what it names; looking too far down kills."""

    def __init__(self):
        keys = ("attack", "back", "forward", "jump", "left", "right", "sneak", "sprint")
        numbers = {name: Box(0, 2304, (), np.int32) for name in ITEMS}
        hand = Dict(type=Enum(*ITEMS, "none", "other"), damage=Box(-1, 1562, (), np.int64))
        life = {name: Box(0, most, (), np.float64) for name, most in (("life", 20), ("food", 20), ("air", 300))}
        self.observation_space = Dict(
            pov=Box(0, 255, (64, 64, 3), np.uint8),
            inventory=Dict(**numbers),
            equipped_items=Dict(mainhand=hand),
            life_stats=Dict(**life),
        )
        self.action_space = Dict(
            **{key: Discrete(2) for key in keys},
            camera=Box(-180, 180, (2,), np.float32),
            place=Enum("none", "dirt", "crafting_table", "furnace"),
            equip=Enum("none", "wooden_pickaxe", "stone_pickaxe", "iron_pickaxe"),
            craft=Enum("none", "planks", "stick", "crafting_table"),
            nearbyCraft=Enum("none", "wooden_pickaxe", "stone_pickaxe", "iron_pickaxe", "furnace"),
            nearbySmelt=Enum("none", "iron_ingot"),
        )
        self.seeded = None

    def seed(self, seed):
        self.seeded = seed

    def reset(self):
        self.held = dict.fromkeys(ITEMS, 0)
        self.hand, self.life, self.pitch, self.logs = "none", 20.0, 0.0, 0
        return self.observe()

    def step(self, action):
        if action["attack"]:
            self.held["log2" if self.logs % 2 else "log"] += 1
            self.logs += 1
        for key in ("craft", "nearbyCraft"):
            if action[key] != "none":
                self.held[action[key]] = self.held.get(action[key], 0) + 1
        if action["equip"] != "none":
            self.hand = action["equip"]
        self.pitch += float(action["camera"][0])
        if action["back"]:
            self.life -= 2
        return self.observe(), 123.0, self.life <= 0, {}

    def observe(self):
        seed = (self.seeded or 0) % 251
        return {
            "pov": np.full((64, 64, 3), seed, np.uint8)[::-1],
            "inventory": {name: np.array(self.held[name]) for name in ITEMS},
            "equipped_items": {"mainhand": {"type": self.hand, "damage": 0}},
            "life_stats": {"life": np.array(self.life), "food": np.array(10), "air": np.array(300 + self.pitch)},
        }

    def close(self):
        pass


class Stock(Diamond):
    """Says after five steps that time is up, in the old API's way; an odd camera angle ends it sooner."""

    def __init__(self):
        super().__init__()
        self.observation_space = Dict(
            pov=Box(0, 255, (64, 64, 3), np.uint8), compass=Dict(angle=Box(-180, 180, (), np.float32))
        )
        self.action_space = Dict(
            attack=Discrete(2), camera=Box(-180, 180, (2,), np.float32), place=Enum("none", "dirt")
        )

    def reset(self):
        self.steps = 0
        return self.observe()

    def observe(self):
        return {"pov": np.zeros((64, 64, 3), np.uint8), "compass": {"angle": np.array(self.steps)}}

    def step(self, action):
        self.steps += 1
        if float(action["camera"][1]) == 1.0:
            return self.observe(), 100.0, True, {"TimeLimit.truncated": False}
        reward = 1.0 if action["place"] == "dirt" else 0.0
        limited = self.steps >= 5
        return self.observe(), reward, limited, {"TimeLimit.truncated": True} if limited else {}


class Faulty(Diamond):
    """Does the fault that the environment variable names when it is attacked; starts a process of its own session."""

    def __init__(self):
        super().__init__()
        self.game = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)

    def step(self, action):
        fault = os.environ["FAULT"] if action["attack"] else ""
        if fault == "hangs":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)
        if fault == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "raises":
            raise ValueError("the world is flat")
        if fault == "loses its game":
            return self.observe(), 0.0, True, {"error": "Connection timed out!"}
        return super().step({**action, "attack": 0})


class Broken:
    def __init__(self):
        raise RuntimeError("no display")
