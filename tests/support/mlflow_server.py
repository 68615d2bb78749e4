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
    """A server over a database in a folder.

    Args:
        folder: of the server's own.
        template: an empty database.
    """

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
        options = {"--host": "127.0.0.1", "--port": str(self._port), "--workers": "1"}
        options |= {
            "--backend-store-uri": f"sqlite:///{self._folder}/mlflow.db",
            "--artifacts-destination": f"{self._folder}",
        }
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "mlflow",
                    "server",
                    *(word for pair in options.items() for word in pair),
                ],
                cwd=self._folder,
                # Its job queue is half a dozen processes more, for what no test asks of it.
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
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
