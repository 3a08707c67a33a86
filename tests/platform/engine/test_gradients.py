"""Several learners take the step that one would take with all their sequences."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from gymnasium import spaces
from linear_agent import LinearAgent
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.dreamerv3.actor import Noise
from oneiros.algorithms.dreamerv3.config import Hyperparameters
from oneiros.platform.engine.learner import average_over_learners, gather_over_learners

FAKES = str(Path(__file__).parent.parent / "fakes")
OBS, ACTION = {"obs": spaces.Box(-1, 1, (3,))}, {"action": spaces.Discrete(2)}

PEER = """
import sys
import torch, torch.distributed as dist
sys.path[:0] = sys.argv[2:4]
import test_gradients
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=1, world_size=2)
getattr(test_gradients, sys.argv[4])(rank=1)
dist.destroy_process_group()
"""


def batch(sequences, seed=0):
    rng = np.random.default_rng(seed)
    shape = (sequences, 9)
    rows = {
        "obs": rng.uniform(-1, 1, (*shape, 3)).astype(np.float32),
        "action": rng.integers(2, size=shape),
        "reward": rng.normal(size=shape).astype(np.float32),
        "is_first": rng.random(shape) < 0.1,
        "is_last": rng.random(shape) < 0.1,
        "is_terminal": np.zeros(shape, bool),
        "latent/hidden": rng.normal(size=(sequences, 1, 16)).astype(np.float16),
        "latent_valid": np.ones(sequences, bool),
    }
    return {name: torch.from_numpy(value) for name, value in rows.items()}


def take_part(rank):
    """Three updates on this rank's half of each batch; returns the agent and what was gathered."""
    agent = LinearAgent(LinearAgent.Config(noise=0.0, batch_size=2), OBS, ACTION, seed=5)
    agent.all_reduce = average_over_learners
    for step in range(3):
        half = {name: value[2 * rank : 2 * rank + 2] for name, value in batch(4, seed=step).items()}
        agent.update(half)
    return agent, gather_over_learners(torch.full((2, 3), float(rank)))


def beside_a_peer(part, folder):
    """Run ``part(rank=0)`` here and ``part(rank=1)`` in another process, joined by gloo."""
    meeting = folder / "rendezvous"
    here = str(Path(__file__).parent)
    peer = subprocess.Popen([sys.executable, "-c", PEER, str(meeting), here, FAKES, part.__name__])
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=2)
    try:
        result = part(rank=0)
    finally:
        dist.destroy_process_group()
    assert peer.wait(120) == 0
    return result


def test_two_learners_over_gloo_equal_one_with_the_joined_batch(tmp_path):
    shared, gathered = beside_a_peer(take_part, tmp_path)
    alone = LinearAgent(LinearAgent.Config(noise=0.0, batch_size=4), OBS, ACTION, seed=5)
    start = alone.policy_state()
    for step in range(3):
        alone.update(batch(4, seed=step))
    for name, expected in alone.state_dict().items():
        if name == "generator":  # It drew noise for other numbers of sequences, which weighs nothing here.
            continue
        torch.testing.assert_close(shared.state_dict()[name], expected, rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(start[name], value) for name, value in alone.policy_state().items())
    assert torch.equal(gathered, torch.tensor([[0.0] * 3] * 2 + [[1.0] * 3] * 2))


DREAMER = {
    "size": "1m",
    "deter": 32,
    "hidden": 16,
    "groups": 4,
    "classes": 4,
    "units": 16,
    "batch_length": 8,
    "imagination_length": 4,
    "precision": "float32",
    "learning_rate": 1e-2,
    "warmup": 0,
}


def dreamer(rank, learners):
    """An agent whose noise depends on the sequence alone, not on which learner has it."""
    agent = DreamerV3(Hyperparameters(**DREAMER, batch_size=4 // learners), OBS, ACTION, seed=5)
    mine = slice(4 // learners * rank, 4 // learners * (rank + 1))
    common = torch.Generator().manual_seed(11)

    def rand(*shape):
        if shape[0] == DREAMER["batch_length"]:
            return torch.rand(shape[0], 4, *shape[2:], generator=common)[:, mine]
        steps, rows, width = shape
        return torch.rand(steps, rows * learners // 4, 4, width, generator=common)[:, :, mine].reshape(shape)

    def noise(shape, generator):
        return Noise(rand(*shape, 1), torch.zeros(*shape, 0))

    agent._rand, agent.actor.noise = rand, noise
    heads = torch.Generator().manual_seed(12)
    for head in (agent.model.reward, agent.critic, agent.actor.mlp):  # Which begin at zero, or close to it.
        head.out.weight.data.copy_(0.1 * torch.randn(head.out.weight.shape, generator=heads))
    return agent


def learn_as_one_of_two(rank):
    agent = dreamer(rank, learners=2)
    agent.all_reduce, agent.all_gather = average_over_learners, gather_over_learners
    return gradient(agent, slice(2 * rank, 2 * rank + 2))


def gradient(agent, sequences):
    metrics, _ = agent.backward(dreamer_batch(sequences))
    if agent.all_reduce is not None:
        agent.all_reduce(agent.weights.grad)
    return agent.weights.grad.clone(), metrics["return_scale"].item()


def dreamer_batch(sequences):
    rows = batch(4)
    del rows["latent/hidden"], rows["latent_valid"]
    rows["latent/deter"], rows["latent/stoch"] = torch.zeros(4, 9, 32), torch.zeros(4, 9, 4, dtype=torch.uint8)
    return {name: value[sequences] for name, value in rows.items()}


def test_two_dreamers_over_gloo_equal_one_with_the_joined_batch(tmp_path):
    found, scale = beside_a_peer(learn_as_one_of_two, tmp_path)
    expected, alone = gradient(dreamer(rank=0, learners=1), slice(None))
    assert scale == pytest.approx(alone)
    assert (expected != 0).float().mean() > 0.9
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_learners_are_given_different_noise():
    one, other = (DreamerV3(Hyperparameters(**DREAMER), OBS, ACTION, seed=5) for _ in range(2))
    assert torch.equal(one._rand(3), other._rand(3))
    one.reseed(1)
    other.reseed(2)
    assert not torch.equal(one._rand(3), other._rand(3))
