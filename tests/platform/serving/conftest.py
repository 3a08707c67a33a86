"""A policy folder of a real, small run."""

import pytest
from oneiros.platform.export import export_policy
from oneiros.platform.training.engine import open_engine
from tiny_run import tiny


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    engine = open_engine(tiny("Pendulum-v1"))
    while not engine.core.updates:
        engine.step()
    place = tmp_path_factory.mktemp("serving")
    engine.save(place / "checkpoint")
    engine.close()
    export_policy(place / "checkpoint", place / "policy", env="Pendulum-v1")
    return place / "policy"
