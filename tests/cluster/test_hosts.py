"""Training over three hosts, of which one is cut off and comes back, and one dies."""

import signal
import time

import pytest
from oneiros.platform.checkpoint import open_checkpoint
from training_driver import Training

pytestmark = [pytest.mark.netns, pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture
def training(network, tmp_path):
    training = Training(network, network.head, tmp_path, runners=4)
    yield training
    training.end()


def test_training_survives_a_host_that_is_cut_off_and_one_that_dies(network, training, tmp_path):
    left, right = network.workers
    training.goes_on("training begins")
    assert [len(host.env_runners()) for host in network.hosts] == [0, 2, 2]

    # A moment without network loses nothing: connections wait.
    runners = right.env_runners()
    right.cut()
    time.sleep(1.0)
    right.plug()
    training.goes_on("after a moment without network")
    assert right.env_runners() == runners

    # Longer, and the cluster gives the host up: training goes on with the other one.
    right.cut()
    network.wait_for_nodes(2)
    training.goes_on("while a host is cut off")
    assert len(left.env_runners()) == 2
    right.kill()  # What the cluster has given up does not join again by itself: the host's own supervisor ends it.
    right.plug()
    network.join(right)
    network.wait_for_nodes(3)
    training.wait(lambda: len(right.env_runners()) == 2, "runners come back to the host")
    metrics = training.wait(lambda: training.newest()["healthy"] == 4, "all runners are back")
    assert metrics["faults/env_runner_restarts"] >= 2
    training.goes_on("with all hosts again")

    # A worker host dies without a word.
    left.kill()
    training.goes_on("after a host died")
    assert len(right.env_runners()) == 2

    training.process.send_signal(signal.SIGTERM)
    assert training.process.wait(timeout=120) == 0, training.log.read_text()[-3000:]
    manifest = open_checkpoint(tmp_path / "checkpoint")
    last = training.newest()
    assert manifest.counters["env_steps"] >= last["env_steps"] and manifest.counters["updates"] >= last["updates"]
    # Steps that were lost with a host were never counted: what counts was replayed as the ratio says.
    assert last["train_ratio"] == pytest.approx(2, rel=0.25)
