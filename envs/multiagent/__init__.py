"""Environments of several agents: PettingZoo's two interfaces, as one environment of joint steps."""

from oneiros.envs.multiagent.aspects import Aspect, AspectSpec
from oneiros.envs.multiagent.contract import Players
from oneiros.envs.multiagent.joint import JointEnv, is_multiagent, joint

__all__ = ["Aspect", "AspectSpec", "JointEnv", "Players", "is_multiagent", "joint"]
