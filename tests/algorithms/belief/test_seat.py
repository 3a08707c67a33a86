"""Agents that act apart, each in a process that is given its own payload and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from oneiros.algorithms.belief import Belief, Seat

Rows = dict[str, torch.Tensor]
NAMES = ("ann", "bob", "cat")
N, STEPS = 4, 5


def observations(make_obs: Callable[..., Rows]) -> list[Rows]:
    return [make_obs(N, seed=t) for t in range(STEPS)]


def together(policy: Belief, seen: list[Rows]) -> list[Rows]:
    """The actions of the joint policy."""
    state, actions = policy.initial_state(N), []
    for t, obs in enumerate(seen):
        action, state, _ = policy.act(obs, torch.full((N,), t == 0), state)
        actions.append(action)
    return actions


def apart(act: Callable[..., tuple[Rows, torch.Tensor]], seen: list[Rows], width: int) -> list[Rows]:
    """The actions of seats that ``act(name, own, heard, is_first)``; messages arrive a step later."""
    said, actions = torch.zeros(N, len(NAMES), width), []
    for t, obs in enumerate(seen):
        joint: Rows = {}
        says = []
        for i, name in enumerate(NAMES):
            heard = said.clone()
            heard[:, i] = 0
            own = {key: value for key, value in obs.items() if key.startswith(f"agent/{name}/")}
            action, message = act(name, own, heard, torch.full((N,), t == 0))
            joint |= action
            says.append(message)
        said = torch.stack(says, 1)
        actions.append(joint)
    return actions


def assert_same(one: list[Rows], other: list[Rows]) -> None:
    assert [sorted(a) for a in one] == [sorted(a) for a in other]
    for a, b in zip(one, other, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


class LocalSeats:
    """One seat a name, in this process."""

    def __init__(self, policies: dict[str, Belief]) -> None:
        self.seats = {name: Seat(policy, name) for name, policy in policies.items()}
        self.states = {name: seat.initial_state(N) for name, seat in self.seats.items()}

    def act(self, name: str, own: Rows, heard: torch.Tensor, is_first: torch.Tensor) -> tuple[Rows, torch.Tensor]:
        action, said, self.states[name] = self.seats[name].act(own, heard, is_first, self.states[name])
        return action, said


SPEAK: dict[str, Any] = {"channel": {"tokens": 2, "vocabulary": 4, "drop_rate": 0.2}}


def test_acting_apart_is_acting_together_bit_for_bit(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
) -> None:
    seen = observations(make_obs)
    joint = make_agent(**SPEAK)
    seats = LocalSeats({name: make_agent(**SPEAK) for name in NAMES})
    assert_same(together(joint, seen), apart(seats.act, seen, joint.channel.width))


def test_a_payload_of_more_or_less_than_its_own_is_refused(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
) -> None:
    seat = Seat(make_agent(), "bob")
    state, first = seat.initial_state(N), torch.ones(N, dtype=torch.bool)
    with pytest.raises(ValueError, match="payload of bob must hold agent/bob/alive, agent/bob/obs; it holds agent/ann"):
        seat.act(make_obs(N), None, first, state)
    with pytest.raises(ValueError, match="There is no agent 'dog'; there are ann, bob, cat"):
        Seat(make_agent(), "dog")
    with pytest.raises(ValueError, match="one centralised mind cannot act apart"):
        Seat(make_agent(variant="centralised"), "bob")


@pytest.fixture
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    others = ray.is_initialized()
    if not others:
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    if not others:
        ray.shutdown()


@pytest.mark.ray
def test_over_ray_too_with_nothing_but_their_own_payloads(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows], cluster: Any
) -> None:
    class Remote:
        """A seat in a process of its own; it says what it was ever given."""

        def __init__(self, config: Any, obs: Any, action: Any, weights: Rows, name: str) -> None:
            from oneiros.algorithms.belief import Belief, Seat

            policy = Belief(config, obs, action, role="policy")
            policy.load_policy_state(weights)
            self.seat = Seat(policy, name)
            self.state = self.seat.initial_state(4)
            self.given: set[str] = set()

        def act(self, own: Rows, heard: torch.Tensor, is_first: torch.Tensor) -> tuple[Rows, torch.Tensor]:
            self.given |= own.keys()
            action, said, self.state = self.seat.act(own, heard, is_first, self.state)
            return action, said

        def was_given(self) -> set[str]:
            return self.given

    seen = observations(make_obs)
    joint = make_agent(**SPEAK)
    remote = cluster.remote(num_cpus=1)(Remote)
    weights = joint.policy_state()
    actors = {name: remote.remote(joint.config, joint.obs_space, joint.action_space, weights, name) for name in NAMES}

    def act(name: str, own: Rows, heard: torch.Tensor, is_first: torch.Tensor) -> tuple[Rows, torch.Tensor]:
        answer: tuple[Rows, torch.Tensor] = cluster.get(actors[name].act.remote(own, heard, is_first))
        return answer

    assert_same(together(joint, seen), apart(act, seen, joint.channel.width))
    for name, actor in actors.items():
        assert all(key.startswith(f"agent/{name}/") for key in cluster.get(actor.was_given.remote()))
