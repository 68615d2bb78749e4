import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
import ray

from pipelines.cluster import address, session
from pipelines.cluster.address import require_answer
from pipelines.config import ConfigError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "_SECONDS", 1.5)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)


@pytest.fixture
def web() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "text", ["garbage", "10.0.0.1", ":6379", "head:port", "head:0", "head:65536", "ftp://head:1"]
)
def test_what_is_no_address_is_said(text):
    with pytest.raises(ConfigError, match=rf"^RAY_ADDRESS={text}: expected HOST:PORT"):
        require_answer(text)


@pytest.mark.parametrize("text", ["http://head:8265", "https://head:8265/"])
def test_a_job_server_is_for_submitting(text):
    with pytest.raises(ConfigError, match="is a job server: set RAY_API_SERVER_ADDRESS to it"):
        require_answer(text)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_dead_address_is_one_line(scheme):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        text = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ConfigError, match=rf"^no Ray answers at RAY_ADDRESS={text} \(.*refused.*unset"):
        require_answer(text)


@pytest.mark.heavy
def test_another_server_is_not_ray(web):
    with pytest.raises(ConfigError, match=f"^RAY_ADDRESS={web}: what answers there is not Ray"):
        require_answer(web)


@pytest.mark.heavy
def test_a_server_of_grpc_is_left_to_ray(monkeypatch):
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    require_answer(f"127.0.0.1:{port}")
    require_answer(f"ray://127.0.0.1:{port}")

    def refuse(address: str | None, **options: object) -> None:
        raise RuntimeError("Version mismatch: The cluster\n was started with:\n Ray: 2.9.0")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(
        ConfigError, match=rf"^RAY_ADDRESS=127.0.0.1:{port}: Version mismatch: The cluster was started"
    ):
        session.connect()
    server.stop(None)
