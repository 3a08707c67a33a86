"""Real checkpoints of small real runs, made once."""

import pytest
from oneiros.platform.config import RunConfig
from oneiros.platform.training.engine import open_engine

TINY = {
    "size": "1m", "deter": 32, "hidden": 16, "groups": 4, "classes": 4, "units": 16, "depth": 2,
    "batch_size": 2, "batch_length": 8, "imagination_length": 3, "warmup": 0, "learning_rate": 1e-3,
}  # fmt: skip


def tiny(env, **changes):
    values = {
        "env": env, "engine": "local", "num_envs_per_runner": 2, "train_ratio": 1, "learning_starts": 40,
        "seed": 3, "hyper": TINY, "replay": {"capacity": 2_000, "on_disk": False},
    }  # fmt: skip
    return RunConfig(**{**values, **changes})


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory):
    """Makes a checkpoint of a run in an environment, with any agent; ``(directory, engine's own policy state)``."""
    made = {}

    def make(env, agent="dreamerv3", **changes):
        key = (env, agent)
        if key not in made:
            hyper = TINY if agent == "dreamerv3" else {}
            engine = open_engine(tiny(env, agent=agent, hyper=hyper, **changes))
            while not engine.core.updates:
                engine.step()
            directory = tmp_path_factory.mktemp("run") / "checkpoint"
            engine.save(directory)
            made[key] = directory, engine.core.policy_state()
            engine.close()
        return made[key]

    return make
