"""``oneiros serve`` as it is used: on Ray Serve and without, on the loopback interface, until it is told to stop."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from http_server import call
from oneiros.platform.cli import main
from ports import free_port

ONEIROS = os.path.join(os.path.dirname(sys.executable), "oneiros")


def wait_for(address, process, seconds=120):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if call("GET", f"{address}/healthz") == (200, {"status": "ok"}):
                return
        except OSError:
            pass
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_policy_is_served_until_it_is_told_to_stop(folder, engine, tmp_path):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [ONEIROS, "serve", str(folder), "--port", str(port), "--engine", engine, "--max-sessions", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True
    )
    try:
        wait_for(address, process)
        _, opened = call("POST", f"{address}/sessions")
        for _ in range(3):
            status, answer = call("POST", f"{address}/sessions/{opened['session']}/act", {"observation": [1, 0, 0]})
            assert status == 200 and len(answer["action"]) == 1
        status, answer = call("POST", f"{address}/sessions/{opened['session']}/act", {"observation": "up"})
        assert status == 400 and "observation must be float32" in answer["error"]
        assert call("POST", f"{address}/sessions")[0] == 201 and call("POST", f"{address}/sessions")[0] == 503
        listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
        assert listening == {"127.0.0.1"}
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and f"answers on {address}" in err, err
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_mistakes_are_one_sentence(folder, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main.run(["serve", str(folder), "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err
    assert main.run(["serve", str(tmp_path / "nothing")]) == 2
    assert "is not a checkpoint: there is no such directory" in capsys.readouterr().err
    assert main.run(["serve", str(folder), "--engine", "flask"]) == 2
    assert "engine must be ray or local, not 'flask'" in capsys.readouterr().err
