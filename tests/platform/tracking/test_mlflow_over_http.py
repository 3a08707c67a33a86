import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import requests
from mlflow import MlflowClient
from oneiros.platform.tracking import Tracker


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@contextmanager
def silence(monkeypatch):
    """Whoever asks the server waits until the end of this; fails if this ended only because they gave up waiting.

    Yields what says that somebody asks.
    """
    asked, over, gave_up = threading.Event(), threading.Event(), threading.Event()
    send = requests.Session.send

    def wait_and_send(session, request, **options):
        asked.set()
        if not over.wait(60):
            gave_up.set()
        return send(session, request, **options)

    with monkeypatch.context() as patch:
        patch.setattr(requests.Session, "send", wait_and_send)
        try:
            yield asked
            assert not gave_up.is_set()
        finally:
            over.set()


@pytest.mark.timeout(120)
def test_a_server_that_goes_away_loses_nothing_and_slows_nobody(server, new_run, monkeypatch, caplog):
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    directory, config = new_run(system_metrics=False)
    tracker = Tracker(directory, config)
    for step in range(5):
        tracker.record({"loss": float(step)}, env_steps=step)
    client = MlflowClient(server.uri)
    wait_until(lambda: tracker.run_id and len(client.get_metric_history(tracker.run_id, "loss")) == 5)

    server.kill()
    with silence(monkeypatch) as asked:
        tracker.record({"loss": 5.0}, env_steps=5)
        wait_until(asked.is_set)
        for step in range(6, 2_000):
            tracker.record({"loss": float(step)}, env_steps=step)
        tracker.video("episode", np.zeros((4, 32, 32, 3), np.uint8), env_steps=2_000)
    wait_until(lambda: tracker._sender.failures >= 2)

    server.start()
    assert tracker.close("FINISHED", timeout=60)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(tracker.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, float(step)) for step in range(2_000)]
    assert [file.path for file in client.list_artifacts(tracker.run_id, "media/episode")] == [
        "media/episode/000000002000.mp4"
    ]
    away = [record.message for record in caplog.records if "cannot be reached" in record.message]
    assert len(away) == 1 and server.uri in away[0]
    assert any("is back" in record.message for record in caplog.records) or tracker._sender._drained


@pytest.mark.timeout(120)
def test_what_a_dead_server_missed_is_sent_by_the_next_process(server, new_run, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    directory, config = new_run()
    tracker = Tracker(directory, config)
    with silence(monkeypatch) as asked:
        tracker.record({"loss": 1.0}, env_steps=10)
        wait_until(asked.is_set)
        assert not tracker.close("KILLED", timeout=1)
    assert any(f"oneiros runs --send {directory.path}" in record.message for record in caplog.records)

    server.start()
    later = Tracker(directory, config)
    later.record({"loss": 2.0}, env_steps=20)
    assert later.close("FINISHED", timeout=60)
    history = MlflowClient(server.uri).get_metric_history(later.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(10, 1.0), (20, 2.0)]
