import os
from pathlib import Path

import pytest
import ray

FAKES = str(Path(__file__).parent.parent / "fakes")


@pytest.fixture(scope="session")
def cluster():
    """Ray on this machine, for all tests of this folder: starting it takes several seconds."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([FAKES, *([before] if before else [])])
    # A busy machine is slow to start a node.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
