"""The step without generators is the step: given the noise that ``act`` draws, it returns what ``act`` returns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import ExplicitPolicy
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.dreamerv3.step import CHOICE, LATENT, VALUE
from torch import Tensor

OBS = {
    "view": spaces.Box(0, 255, (20, 16, 3), np.uint8),
    "speed": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "level": spaces.Discrete(4),
}
CASES = {
    "discrete": (OBS, {"action": spaces.Discrete(3)}),
    "continuous": (OBS, {"action": spaces.Box(-1, 1, (2,), np.float32)}),
    "mixed": (OBS, {"action/grip": spaces.MultiDiscrete([2, 3]), "action/arm": spaces.Box(-1, 1, (2,), np.float32)}),
    "masked": ({**OBS, "action_mask": spaces.MultiBinary(3)}, {"action": spaces.Discrete(3)}),
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", list(CASES))
def test_the_step_module_acts_as_act_does(
    case: str, mode: str, make_agent: Callable[..., DreamerV3], make_rows: Callable[..., dict[str, Tensor]], roughen
) -> None:
    agent = make_agent(*CASES[case])
    roughen(agent)
    assert isinstance(agent, ExplicitPolicy)
    module, fields = agent.step_module()
    rows = make_rows(agent, batch=5, length=6)
    if "action_mask" in rows:
        rows["action_mask"][:] = torch.tensor([1, 0, 1])
    state = agent.initial_state(5)
    noise_generator = torch.Generator()
    for t in range(6):
        obs, first = {k: rows[k][:, t] for k in agent.obs_space}, rows["is_first"][:, t].bool()
        noise_generator.set_state(agent.act_generator.get_state())
        noise = {LATENT: torch.rand(5, agent.model.rssm.groups, generator=noise_generator)}
        drawn = agent.actor.noise((5,), noise_generator)
        noise |= {CHOICE: drawn.uniform, VALUE: drawn.normal}
        noise = {key: noise[key] for key in fields}
        expected, expected_state, _ = agent.act(obs, first, state, mode)
        with torch.no_grad():
            action, following = module(obs, first, state, noise, torch.full((5,), mode == "train"))
        assert action.keys() == expected.keys() and following.keys() == expected_state.keys()
        for key in expected:
            assert torch.equal(action[key], expected[key]) and action[key].dtype == expected[key].dtype
        for key in following:
            torch.testing.assert_close(following[key], expected_state[key], rtol=0, atol=0)
        state = expected_state


def test_noise_that_nothing_is_drawn_from_is_no_input(make_agent: Callable[..., DreamerV3]) -> None:
    assert set(make_agent().step_module()[1]) == {LATENT, CHOICE}
    continuous = make_agent(action={"action": spaces.Box(-1, 1, (2,), np.float32)})
    assert {key: field.shape for key, field in continuous.step_module()[1].items()} == {LATENT: (4,), VALUE: (2,)}
