"""The cluster that these tests share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    from hosts import Network

    network = Network(tmp_path_factory.mktemp("network"))
    try:
        network.open("left", "right")
        yield network
    finally:
        network.close()
