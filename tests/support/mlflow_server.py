"""An MLflow server on loopback, which also keeps the artifacts; it can go away and come back."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path


class MlflowServer:
    """A server over a copy of an empty database, the `template`, in a `folder` of its own."""

    def __init__(self, folder: Path, template: Path) -> None:
        self._folder = folder
        shutil.copy(template, folder / "mlflow.db")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The same whenever it runs."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self._folder)]
        # Its job queue is half a dozen processes more, for what no test asks of it.
        settings = {"cwd": self._folder, "env": os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}}
        with (self._folder / "log").open("ab") as log:
            streams = {"stdout": log, "stderr": subprocess.STDOUT}
            self._process = subprocess.Popen(command, **settings, **streams, start_new_session=True)
        try:
            self._wait_until_healthy(self._process)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL all of it."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=60)
            self._process = None

    def _wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        log = self._folder / "log"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            with suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=5):
                return
            time.sleep(0.1)
        raise AssertionError(f"no answer from {self.address}: {log.read_text()}")
