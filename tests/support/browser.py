"""A headless Chromium that tests drive: over WebDriver, with nothing but `requests`."""

import base64
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.sessions import kill_session

TAB, ENTER, SPACE, SHIFT = "\ue004", "\ue007", "\ue00d", "\ue008"
_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars"),
)


class Browser:
    """A window of Chromium, by the address of its WebDriver session."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, page: Path) -> None:
        """Open a file and wait until it is loaded."""
        self._post("url", {"url": page.absolute().as_uri()})

    def look(self, scheme: str, width: int) -> None:
        """Prefer `light` or `dark`, and be so many pixels wide."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", features=features)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self.devtools("Emulation.setDeviceMetricsOverride", **size, mobile=False)

    def run(self, script: str) -> Any:
        """Run the body of a function in the page; returns what it returns."""
        return self._post("execute/sync", {"script": script, "args": []})

    def press(self, *keys: str) -> None:
        """Press and release keys, one after another, where the focus is."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def screenshot(self, path: Path) -> Path:
        """Write a PNG of the whole page; returns its path."""
        found = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def requested(self) -> list[str]:
        """Addresses that pages asked for since the last call, but data URIs and the browser's own."""
        logged = self._post("se/log", {"type": "performance"})
        entries = [json.loads(entry["message"])["message"] for entry in logged]
        sent = [entry["params"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
        urls = [parameters["request"]["url"] for parameters in sent]
        return [url for url in urls if not url.startswith(("data:", "chrome:"))]

    def complaints(self) -> list[str]:
        """Errors and warnings of the page's console since the last call."""
        return [entry["message"] for entry in self._post("se/log", {"type": "browser"})]

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Run a command of Chromium's DevTools protocol."""
        return self._post("goog/cdp/execute", {"cmd": command, "params": parameters})

    def _post(self, command: str, body: dict[str, Any]) -> Any:
        return _answer(requests.post(f"{self._session}/{command}", json=body, timeout=120))


def _answer(response: requests.Response) -> Any:
    value = response.json()["value"]
    assert response.ok, value
    return value


def chromium() -> tuple[str, str]:
    """Paths of Chromium and of its driver; skips the test where they are not installed."""
    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    return browser, driver


@contextmanager
def browsing() -> Iterator[Browser]:
    """A fresh Chromium; when the block ends, no process of it is left."""
    browser, driver = chromium()
    scratch = Path(tempfile.mkdtemp(prefix="dpt-browser-"))
    log = scratch / "log"
    with log.open("wb") as sink:
        streams = {"stdout": sink, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([driver, "--port=0"], **streams, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{_port(process, log)}"
        arguments = [*_ARGUMENTS, f"--user-data-dir={scratch / 'profile'}"]
        yield Browser(f"{address}/session/{_start(address, browser, arguments)}")
    finally:
        process.send_signal(signal.SIGTERM)
        kill_session(process.pid)
        process.wait(timeout=60)
        shutil.rmtree(scratch, ignore_errors=True)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port that the driver chose and says in its log."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        for line in log.read_text().splitlines():
            if line.startswith("ChromeDriver was started successfully on port "):
                return int(line.rstrip(".").rsplit(" ", 1)[1])
        time.sleep(0.05)
    raise AssertionError(f"the driver does not start: {log.read_text()}")


def _start(address: str, browser: str, arguments: Sequence[str]) -> str:
    options = {"binary": browser, "args": list(arguments)}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options}
    wanted |= {"goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
    asked = {"capabilities": {"alwaysMatch": wanted}}
    return str(_answer(requests.post(f"{address}/session", json=asked, timeout=120))["sessionId"])
