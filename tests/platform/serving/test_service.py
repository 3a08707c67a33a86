"""Sessions, batches and refusals, without HTTP and without Ray."""

import asyncio
import threading

import numpy as np
import pytest
from gymnasium import spaces
from oneiros.platform.export import load
from oneiros.platform.serving import (
    ActRequest,
    BadRequest,
    PolicyService,
    Refused,
    TooManySessions,
    UnknownSession,
)
from oneiros.platform.serving.batching import Batcher
from oneiros.platform.serving.observation_json import largest, read, write
from oneiros.platform.serving.sessions import Sessions

UP, DOWN, SIDE = [1.0, 0.0, 0.0], [-1.0, 0.0, 2.0], [0.0, 1.0, -4.0]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def service(folder, clock):
    return PolicyService(load(folder, seed=1), most_sessions=3, idle_seconds=10, clock=clock)


def test_a_session_keeps_the_recurrent_state(service):
    session = service.open()
    states = []
    for observation in (UP, DOWN, SIDE):
        (action,) = service.act([ActRequest(session, observation)])
        assert isinstance(action, list) and -2 <= action[0] <= 2
        states.append(service.sessions.use(session).state["deter"])
    # What a session sees last is filtered through what it saw before: another one that sees only that is elsewhere.
    other = service.open()
    service.act([ActRequest(other, SIDE)])
    assert not np.allclose(service.sessions.use(other).state["deter"], states[-1], atol=1e-6)
    service.act([ActRequest(session, SIDE, first=True)])
    again = service.sessions.use(session).state["deter"]
    np.testing.assert_allclose(again, service.sessions.use(other).state["deter"], atol=1e-6)


def test_one_forward_pass_serves_many_sessions_and_nobody_meets_anothers_state(folder):
    together = PolicyService(load(folder))
    names = [together.open() for _ in range(5)]
    observations = [[np.cos(a), np.sin(a), 0.1 * a] for a in range(5)]
    for _ in range(3):
        answers = together.act([ActRequest(name, obs) for name, obs in zip(names, observations, strict=True)])
        assert not any(isinstance(answer, Refused) for answer in answers)
    assert together.batches == 3 and together.steps == 15
    # The latent is sampled, so only what does not depend on it can be compared: the first deterministic state.
    policy = load(folder)
    for name, observation in zip(names, observations, strict=True):
        together.act([ActRequest(name, observation, first=True)])
        _, alone = policy.step(np.array(observation, np.float32))
        np.testing.assert_allclose(together.sessions.use(name).state["deter"], alone["deter"], atol=1e-6)


def test_two_requests_of_one_session_in_one_batch_are_two_steps_in_order(service):
    one, two = service.open(), service.open()
    service.act([ActRequest(one, UP), ActRequest(two, UP), ActRequest(one, DOWN)])
    assert service.batches == 2 and service.steps == 3
    state = service.sessions.use(two).state["deter"]
    assert not np.allclose(service.sessions.use(one).state["deter"], state, atol=1e-6)


def test_modes_are_not_mixed_and_a_sample_is_not_the_best_action(service):
    one, two = service.open(), service.open()
    best = [service.act([ActRequest(one, UP, first=True)])[0][0] for _ in range(16)]
    samples = [service.act([ActRequest(two, UP, first=True, mode="train")])[0][0] for _ in range(16)]
    assert np.std(samples) > 3 * np.std(best)
    answers = service.act([ActRequest(one, UP), ActRequest(two, UP, mode="train")])
    assert all(isinstance(answer, list) for answer in answers)


def test_a_bad_request_costs_nobody_else_anything(service):
    good, bad = service.open(), service.open()
    answers = service.act([ActRequest(bad, [1.0]), ActRequest(good, UP), ActRequest("nobody", UP)])
    assert isinstance(answers[0], BadRequest) and isinstance(answers[2], UnknownSession)
    assert isinstance(answers[1], list) and service.refused == 2
    assert service.sessions.use(bad).state is None


def test_sessions_are_bounded_and_expire(service, clock):
    first = service.open()
    clock.now = 6
    second, third = service.open(), service.open()
    with pytest.raises(TooManySessions, match="all 3 sessions are taken"):
        service.open()
    clock.now = 11
    assert service.open() not in (first, second, third)
    with pytest.raises(UnknownSession, match="idle for 10 s"):
        service.close(first)
    service.act([ActRequest(second, UP)])
    clock.now = 17
    facts = service.describe()["sessions"]
    assert facts["open"] == 2 and facts["expired"] == 2
    service.close(second)
    assert service.describe()["sessions"]["open"] == 1


def test_names_of_sessions_cannot_be_guessed():
    names = {Sessions(most=1).open() for _ in range(50)}
    assert len(names) == 50 and min(map(len, names)) >= 20


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([], "must be an object"),
        ({}, 'must be an object with "observation"'),
        ({"observation": UP, "obs": 1}, "no entry 'obs'"),
        ({"observation": UP, "first": 1}, "first must be true or false"),
        ({"observation": UP, "mode": "best"}, "mode must be eval"),
    ],
)
def test_a_body_that_is_none_is_refused(body, says):
    with pytest.raises(BadRequest, match=says):
        ActRequest.parse("s", body)


SPACE = spaces.Dict(
    view=spaces.Box(0, 255, (2, 2), np.uint8),
    speed=spaces.Box(-1, 1, (2,), np.float32),
    level=spaces.Discrete(3, start=5),
    pair=spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2))),
)
GOOD = {"view": [[0, 255], [1, 2]], "speed": [0.5, 3], "level": 7, "pair": [[1, 2], [0, 1]]}


def test_nested_observations_become_what_the_environment_would_give():
    value = read(SPACE, GOOD)
    assert value["view"].dtype == np.uint8 and value["speed"].dtype == np.float32 and value["level"].shape == ()
    assert isinstance(value["pair"], tuple) and write(value) == {**GOOD, "speed": [0.5, 3.0]}
    assert (read(SPACE, {**GOOD, "view": {"base64": "AP8BAg=="}})["view"] == value["view"]).all()
    assert largest(SPACE) > len(str(GOOD))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"view": [[0, 256], [1, 2]]}, "observation/view has a value outside of 0 to 255"),
        ({"view": [[0, 0.5], [1, 2]]}, "observation/view must be uint8 .* without fractions"),
        ({"view": [[0], [1, 2]]}, "observation/view is not a regular array"),
        ({"view": {"base64": "AP8B"}}, "observation/view has 3 bytes, but uint8 of the shape .2, 2. has 4"),
        ({"view": {"base64": "?"}}, "observation/view is not base64"),
        ({"view": {"zip": 1}}, "must be an array or"),
        ({"speed": [1.0]}, r"observation/speed has the shape \(1,\), but must be float32 of the shape \(2,\)"),
        ({"speed": ["a", "b"]}, "observation/speed must be float32"),
        ({"speed": [float("nan"), 0]}, "observation/speed has a value that is not finite"),
        ({"speed": None}, "observation/speed must be float32"),
        ({"level": 8}, "observation/level has a value outside of 5 to 7"),
        ({"pair": [[1, 2]]}, "observation/pair must be a list of 2 entries"),
        ({"pair": [[2, 0], [0, 1]]}, "observation/pair/0 has a value outside"),
        ({"extra": 1}, "observation has no entry 'extra'; it has view, speed, level, pair"),
    ],
)  # fmt: skip
def test_an_observation_that_does_not_fit_is_refused_by_name(change, says):
    # Gymnasium sorts what it is given, so the order of the names in the sentence is its own.
    says = says.replace("view, speed, level, pair", ", ".join(SPACE.spaces))
    with pytest.raises(BadRequest, match=says):
        read(SPACE, {**GOOD, **change})
    with pytest.raises(BadRequest, match="observation lacks 'level'"):
        read(SPACE, {key: value for key, value in GOOD.items() if key != "level"})


def test_requests_that_come_while_a_batch_is_computed_share_the_next_one():
    sizes, release = [], threading.Event()

    def answer(requests):
        sizes.append(len(requests))
        release.wait(10)
        return [ValueError("odd") if request % 2 else request * 10 for request in requests]

    async def crowd():
        batcher = Batcher(answer, most=8)
        tasks = [asyncio.create_task(batcher.submit(number)) for number in range(3)]
        while not sizes:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(batcher.submit(number)) for number in range(3, 15)]
        await asyncio.sleep(0.01)
        tasks[6].cancel()
        await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(crowd())
    assert [str(a) if isinstance(a, ValueError) else a for a in answers[:4]] == [0, "odd", 20, "odd"]
    assert isinstance(answers[6], asyncio.CancelledError)
    # Of the twelve that waited one hung up, and at most eight are answered together.
    assert sizes == [3, 7, 4]


def test_an_answer_that_fails_fails_for_its_batch_alone():
    calls = []

    def answer(requests):
        calls.append(len(requests))
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return list(requests)

    async def twice():
        batcher = Batcher(answer)
        with pytest.raises(RuntimeError, match="out of memory"):
            await batcher.submit(1)
        return await batcher.submit(2)

    assert asyncio.run(twice()) == 2
