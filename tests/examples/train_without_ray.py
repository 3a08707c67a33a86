"""Train DreamerV3 in one process, without Ray: ``python train_without_ray.py CartPole-v1 20000``."""

import sys

import torch
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.envs.registry import make_vector
from oneiros.platform.rollout import Rollout, evaluate
from oneiros.platform.training.agents import build_agent
from oneiros.platform.training.assembly import build_core
from oneiros.platform.training.collector import RolloutCollector
from oneiros.platform.training.loop import Loop
from oneiros.platform.training.ratio import TrainRatio

env_id, env_steps = sys.argv[1], int(sys.argv[2])
config = DreamerV3.Config(size="1m", batch_size=8, batch_length=32)
envs = make_vector(env_id, num_envs=4, seed=0)
spaces = envs.single_observation_space, envs.single_action_space

agent = build_agent(DreamerV3, config, *spaces)
core = build_core(agent, config, *spaces, device=torch.device("cpu"), capacity=100_000)
rollout = Rollout(envs, agent, random_steps=256)
ratio = TrainRatio(32, rows_per_update=config.batch_size * config.batch_length)
loop = Loop(core, RolloutCollector(rollout), ratio, fragment=4, learning_starts=512)

while loop.env_steps < env_steps:
    loop.run(steps=256)
    metrics = loop.metrics()
    print({name: round(metrics.get(name, 0), 2) for name in ("env_steps", "updates", "return", "loss/total")})

print(evaluate(env_id, agent, episodes=4, seed=1).summary())
assert "ray" not in sys.modules
