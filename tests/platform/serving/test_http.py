"""The service behind a real socket: many clients at once, and an answer in words for whatever they send."""

import threading

import numpy as np
import pytest
from http_server import call, serving
from oneiros.envs import registry
from oneiros.platform.export import load
from oneiros.platform.serving import PolicyService
from oneiros.platform.serving.http_app import build_app

UP = [1.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def service(folder):
    return PolicyService(load(folder), most_sessions=20)


@pytest.fixture(scope="module")
def address(service):
    with serving(build_app(service)) as address:
        yield address


def test_a_client_plays_an_episode(address):
    env = registry.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    status, opened = call("POST", f"{address}/sessions")
    assert status == 201 and opened["idle_seconds"] == 600
    for _ in range(20):
        status, answer = call(
            "POST", f"{address}/sessions/{opened['session']}/act", {"observation": observation.tolist()}
        )
        assert status == 200
        action = np.array(answer["action"], np.float32)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)
    assert call("DELETE", f"{address}/sessions/{opened['session']}")[0] == 204
    status, answer = call("POST", f"{address}/sessions/{opened['session']}/act", {"observation": UP})
    assert status == 404 and "there is no session" in answer["error"]
    env.close()


def test_it_says_what_it_is(address):
    status, facts = call("GET", f"{address}/policy")
    assert status == 200 and facts["env"] == "Pendulum-v1" and facts["observation"]["shape"] == [3]
    assert call("GET", f"{address}/healthz") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"observation": [1.0]}, 400, "observation has the shape (1,), but must be float32 of the shape (3,)."),
        ({"observation": [1.0, 2.0, 1e400]}, 400, "observation has a value that is not finite."),
        ({"obs": UP}, 400, 'the body must be an object with "observation"'),
        ({"observation": UP, "mode": "greedy"}, 400, "mode must be eval"),
        ({"observation": [[0.0] * 3] * 500}, 413, "the body is larger than"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(address, body, status, says):
    _, opened = call("POST", f"{address}/sessions")
    found, answer = call("POST", f"{address}/sessions/{opened['session']}/act", body)
    assert found == status and answer["error"].startswith(says)
    assert call("DELETE", f"{address}/sessions/{opened['session']}")[0] == 204


def test_concurrent_requests_are_answered_in_batches(address, service):
    names = [call("POST", f"{address}/sessions")[1]["session"] for _ in range(12)]
    steps, batches, failures = service.steps, service.batches, []

    def play(name):
        for _ in range(15):
            status, answer = call("POST", f"{address}/sessions/{name}/act", {"observation": UP})
            if status != 200:
                failures.append(answer)

    threads = [threading.Thread(target=play, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert service.steps - steps == 180 and service.batches - batches < 180
    for name in names:
        call("DELETE", f"{address}/sessions/{name}")


def test_a_full_house_is_said_to_be_full(address):
    names = []
    while (opened := call("POST", f"{address}/sessions"))[0] == 201:
        names.append(opened[1]["session"])
    assert len(names) == 20 and opened[0] == 503 and "all 20 sessions are taken" in opened[1]["error"]
    for name in names:
        call("DELETE", f"{address}/sessions/{name}")


def test_a_fault_of_the_policy_is_a_500_and_not_the_end(address, service, monkeypatch):
    _, opened = call("POST", f"{address}/sessions")
    url = f"{address}/sessions/{opened['session']}/act"

    def fail(*_):
        raise RuntimeError("secret detail")

    with monkeypatch.context() as patch:
        patch.setattr(service.policy, "act", fail)
        status, answer = call("POST", url, {"observation": UP})
    assert status == 500 and "secret" not in str(answer)
    assert call("POST", url, {"observation": UP})[0] == 200
