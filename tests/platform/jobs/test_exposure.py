"""What doctor says of servers that anybody could use: real ones, on this machine's real addresses."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from oneiros.platform.jobs.exposure import exposures, is_exposed_uri


@pytest.fixture
def serve():
    """Starts a server that answers everything with a status."""
    servers = []

    def start(host, status):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()

            def log_message(self, *args):
                return None

        server = ThreadingHTTPServer((host, 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def only_ours(monkeypatch):
    """Whatever else runs on this machine is not looked at."""
    here = psutil.net_connections

    def own(kind):
        return [one for one in here(kind) if one.pid == psutil.Process().pid]

    monkeypatch.setattr(psutil, "net_connections", own)


@pytest.mark.parametrize(
    ("variable", "kind", "name"),
    [("RAY_API_SERVER_ADDRESS", "ray", "Ray dashboard"), ("MLFLOW_TRACKING_URI", "mlflow", "MLflow server")],
)
def test_a_server_that_is_open_and_asks_for_nothing_is_warned_of(oneiros, serve, monkeypatch, variable, kind, name):
    port = serve("0.0.0.0", 200)
    monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
    (found,) = exposures()
    assert (found.kind, found.address) == (kind, f"0.0.0.0:{port}") and "127.0.0.1" in found.mend
    _, out, _ = oneiros("doctor")
    assert f"Warning: {name} exposed: 0.0.0.0:{port} is open to the network and wants no token" in out


@pytest.mark.parametrize(("host", "status"), [("0.0.0.0", 401), ("127.0.0.1", 200)])
def test_one_that_wants_a_token_or_listens_on_loopback_is_not(serve, monkeypatch, host, status):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{serve(host, status)}")
    assert list(exposures()) == []


def test_a_token_that_travels_in_the_clear_is_warned_of(oneiros, monkeypatch):
    # A port where nobody answers: doctor asks whether the server is well.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://192.0.2.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    _, out, _ = oneiros("doctor")
    assert "a token goes to http://192.0.2.1:9 unencrypted" in out and "secret" not in out


@pytest.mark.parametrize(
    ("uri", "exposed"),
    [
        ("http://mlflow.example.org:5000", True),
        ("https://mlflow.example.org", False),
        ("http://127.0.0.1:5000", False),
        ("http://localhost:5000", False),
        ("http://[::1]:5000", False),
        ("http://10.0.0.5:5000", True),
        ("sqlite:///mlflow.db", False),
    ],
)
def test_what_can_be_read_on_the_way(uri, exposed):
    assert is_exposed_uri(uri) is exposed
