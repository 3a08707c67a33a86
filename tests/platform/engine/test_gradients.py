"""Several learners take the step that one would take with all their sequences."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from gymnasium import spaces
from linear_agent import LinearAgent
from oneiros.platform.engine.learner import average_over_learners, gather_over_learners

FAKES = str(Path(__file__).parent.parent / "fakes")
OBS, ACTION = {"obs": spaces.Box(-1, 1, (3,))}, {"action": spaces.Discrete(2)}

PEER = """
import sys
import torch, torch.distributed as dist
sys.path[:0] = sys.argv[2:4]
import test_gradients
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=1, world_size=2)
test_gradients.take_part(rank=1)
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


def test_two_learners_over_gloo_equal_one_with_the_joined_batch(tmp_path):
    here = str(Path(__file__).parent)
    peer = subprocess.Popen([sys.executable, "-c", PEER, str(tmp_path / "rendezvous"), here, FAKES])
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=2)
    try:
        shared, gathered = take_part(rank=0)
    finally:
        dist.destroy_process_group()
    assert peer.wait(120) == 0

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
