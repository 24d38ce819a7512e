"""A real browser without a window: Chromium, spoken to through its DevTools pipe; no driver has to be installed.

with Browser() as browser:
    page = browser.open(path, width=400, dark=True)
    page.evaluate("document.title")
    page.screenshot(picture)
"""

import base64
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
# without a GPU, and without the sandbox, which root and containers do not have: the pages are the project's own
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions")


class Browser:
    """One Chromium, one page after another."""

    def __enter__(self) -> "Browser":
        assert CHROMIUM is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        options = shlex.join([*OPTIONS, *OFFLINE, f"--user-data-dir={self._profile.name}", "--remote-debugging-pipe"])
        command = f"exec {shlex.quote(CHROMIUM)} {options} about:blank 3<&{theirs_in} 4>&{theirs_out}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        self._process = subprocess.Popen(["bash", "-c", command], pass_fds=(theirs_in, theirs_out), **quiet)
        os.close(theirs_in)
        os.close(theirs_out)
        self._number, self._rest, self.events = 0, b"", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Emulation.setScrollbarsHidden", self._session, hidden=True)  # as on a telephone: all widths are full
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", self._session)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._send("Browser.close", None, {})
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._profile.cleanup()

    def open(self, path: Path, *, width: int, dark: bool = False, height: int = 900) -> "Page":
        """Load a page at this width, in CSS pixels."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", self._session, features=scheme)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", self._session, **size)
        self.events.clear()
        self.call("Page.navigate", self._session, url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()
        return Page(self, self._session)

    def call(self, method: str, session: str | None = None, **parameters: object) -> dict:
        """One command of the DevTools protocol, and its result."""
        number = self._send(method, session, parameters)
        while True:
            message = self._read()
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]

    def _send(self, method: str, session: str | None, parameters: dict) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        data = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        return self._number

    def _read(self) -> dict:
        while b"\0" not in self._rest:
            data = os.read(self._in, 1 << 20)
            assert data, "Chromium has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


class Page:
    """The page that is open."""

    def __init__(self, browser: Browser, session: str):
        self._browser, self._session = browser, session

    def evaluate(self, expression: str) -> object:
        """Value of a JavaScript expression."""
        found = self._browser.call("Runtime.evaluate", self._session, expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """Errors on the console, exceptions, and requests that failed."""
        self.evaluate("0")  # everything that was said before has arrived after it
        found = []
        for event in self._browser.events:
            about = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(about["exceptionDetails"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
                found.append(str([argument.get("value") for argument in about["args"]]))
            elif event["method"] == "Log.entryAdded" and about["entry"]["level"] == "error":
                found.append(about["entry"]["text"])
            elif event["method"] == "Network.loadingFailed":
                found.append(about["errorText"])
        return found

    def requests(self) -> list[str]:
        """Addresses that the page asked for, besides itself and data in it."""
        sent = [
            e["params"]["request"]["url"] for e in self._browser.events if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in sent[1:] if not url.startswith("data:")]

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Save a PNG, of the complete page unless ``whole`` is False."""
        found = self._browser.call(
            "Page.captureScreenshot", self._session, captureBeyondViewport=whole, **self._clip(whole)
        )
        path.write_bytes(base64.b64decode(found["data"]))

    def _clip(self, whole: bool) -> dict:
        if not whole:
            return {}
        size = self._browser.call("Page.getLayoutMetrics", self._session)["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
