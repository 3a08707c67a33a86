"""Real checkpoints of small real runs, made once."""

import pytest
from oneiros.platform.training.engine import open_engine
from tiny_run import HYPER, tiny


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory):
    """Makes a checkpoint of a run in an environment, with any agent; ``(directory, engine's own policy state)``."""
    made = {}

    def make(env, agent="dreamerv3", **changes):
        key = (env, agent)
        if key not in made:
            hyper = HYPER if agent == "dreamerv3" else {}
            engine = open_engine(tiny(env, agent=agent, hyper=hyper, **changes))
            while not engine.core.updates:
                engine.step()
            directory = tmp_path_factory.mktemp("run") / "checkpoint"
            engine.save(directory)
            made[key] = directory, engine.core.policy_state()
            engine.close()
        return made[key]

    return make
