"""A real HTTP endpoint that speaks S3 and fails now and then, as S3 does."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import make_server

ERRORS = {"InternalError": "500 Internal Server Error", "ServiceUnavailable": "503 Service Unavailable"}
ERRORS["SlowDown"] = "503 Slow Down"
FAULTS = (*ERRORS, "slow", "cut off")


class FaultyS3:
    """A WSGI application: moto's S3, of whose answers a seeded share are errors, slow, or break off."""

    def __init__(self) -> None:
        self._s3 = DomainDispatcherApplication(create_backend_app)
        self._rng = random.Random(3)
        self._lock = threading.Lock()
        self.share = 0.0  # of the answers
        self.down = False  # all of them are errors
        self.closed = False  # nobody's keys are known
        self.faults: Counter[str] = Counter()  # how many of each kind there were

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        fault = self._draw()
        if self.closed:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>"]
        if fault in ERRORS:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(ERRORS[fault], [("Content-Type", "application/xml")])
            return [f"<Error><Code>{fault}</Code><Message>{ERRORS[fault]}</Message></Error>".encode()]
        if fault == "slow":
            time.sleep(0.5)
        answer: Iterable[bytes] = self._s3(environ, start_response)
        if fault == "cut off" and environ["REQUEST_METHOD"] == "GET":
            whole = b"".join(answer)
            return [whole[: len(whole) // 2]]  # the header has announced all of it
        return answer

    def _draw(self) -> str | None:
        with self._lock:
            fault = self._rng.choice(FAULTS) if self._rng.random() < self.share else None
            if self.down:
                fault = "ServiceUnavailable"
            if fault:
                self.faults[fault] += 1
            return fault


@contextmanager
def serving(buckets: Sequence[str]) -> Iterator[FaultyS3]:
    """The endpoint with these buckets, which `AWS_ENDPOINT_URL` names as long as the block runs."""
    app = FaultyS3()
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()
        for bucket in buckets:
            S3FileSystem().mkdir(bucket)
        yield app
        S3FileSystem.clear_instance_cache()
    server.shutdown()
    thread.join()
