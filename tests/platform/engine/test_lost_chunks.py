"""What a learner does about experience that was announced and never comes."""

from types import SimpleNamespace

import pytest
import ray
from oneiros.platform.engine.learner import WorldModelLearner
from ray.exceptions import GetTimeoutError


def test_no_chunk_is_waited_for_without_a_limit(monkeypatch, caplog):
    def wait(chunks, num_returns, timeout):
        return [chunk for chunk in chunks if chunk != "far"], ["far"]

    def get(chunk, timeout=None):
        assert timeout is not None, "an owner that dies just now would be waited for for ever"
        if chunk == "gone":
            raise GetTimeoutError("gone")
        return f"rows of {chunk}"

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)
    stored = []
    learner = object.__new__(WorldModelLearner)
    learner.core = SimpleNamespace(add=stored.append, break_streams=lambda: stored.append("a break"))
    learner._lost_chunks = 0
    assert learner._take(["one", "gone", "two", "far"]) == 2
    assert stored == ["rows of one", "a break", "rows of two", "a break"]
    assert [record.levelname for record in caplog.records] == ["WARNING"], "further ones are only counted"


@pytest.mark.parametrize("chunks", [[], ["one"]])
def test_nothing_is_lost_where_all_comes(monkeypatch, chunks):
    monkeypatch.setattr(ray, "wait", lambda chunks, num_returns, timeout: (chunks, []))
    monkeypatch.setattr(ray, "get", lambda chunk, timeout=None: chunk)
    learner = object.__new__(WorldModelLearner)
    stored = []
    learner.core = SimpleNamespace(add=stored.append)
    assert learner._take(chunks) == 0 and stored == chunks
