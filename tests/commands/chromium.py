"""A real browser for tests: Debian's Chromium without a window, spoken to over two pipes (DevTools protocol)."""

import base64
import contextlib
import json
import os
import select
import subprocess
import time
from pathlib import Path
from shutil import which
from typing import Any, Self

from tests.needed import lacking

ANSWER_MAX_S = 60.0


def chromium_program() -> str:
    """The browser. CI must have it; elsewhere a test without it is skipped, and says what to install."""
    found = which("chromium")
    if found is None:
        lacking("there is no Chromium here: as root on Debian, apt-get install chromium")
    return found


class Page:
    """One page in a browser of its own.

    Attributes:
        troubles: what the console complained of, and addresses that were asked for and are not the page's own.
    """

    def __init__(self, folder: Path) -> None:
        """Start the browser with a profile in this folder."""
        self.troubles: list[str] = []
        self._own = "file:"
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        self._buffer = b""
        there, self._write_fd = os.pipe()
        self._read_fd, back = os.pipe()
        arguments = [
            chromium_program(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--no-first-run", f"--user-data-dir={folder}",
            "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip

        def join_pipes() -> None:
            os.dup2(there, 1000)  # out of the way of each other: 3 and 4 may be any of the four
            os.dup2(back, 1001)
            os.dup2(1000, 3)
            os.dup2(1001, 4)

        self._process = subprocess.Popen(
            arguments, pass_fds=(3, 4), preexec_fn=join_pipes, start_new_session=True,  # noqa: PLW1509
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(there)
        os.close(back)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._session = None
            with contextlib.suppress(AssertionError, BrokenPipeError):  # it may go before it has answered
                self.call("Browser.close")
            self._process.wait(ANSWER_MAX_S)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._write_fd)
            os.close(self._read_fd)

    def open(self, path: Path, *, width: int, dark: bool = False) -> None:
        """Show a file, as wide as this, to a reader who likes it light or dark."""
        self.visit(path.as_uri(), width=width, dark=dark)

    def visit(self, url: str, *, width: int, dark: bool = False) -> None:
        """Show an address, the same way; what the page asks for there is its own."""
        self._own = url if url.startswith("http:") else "file:"
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=url)
        self._take_until(lambda: any(event["method"] == "Page.loadEventFired" for event in self._events))

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Until an expression in the page is true."""
        again = f"const look = () => ({expression}) ? done() : setTimeout(look, 20); look()"
        answer = self.call("Runtime.evaluate", expression=f"new Promise(done => {{ {again} }})", awaitPromise=True)
        assert "exceptionDetails" not in answer, answer

    def screenshot(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def pdf(self) -> bytes:
        """The page on paper."""
        self.call("Emulation.setEmulatedMedia", media="", features=[])
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol, and its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write_fd, json.dumps(message).encode() + b"\0")
        answers: list[dict[str, Any]] = []
        self._take_until(lambda: bool(answers), answers)
        assert "error" not in answers[0], f"{method}: {answers[0]['error']}"
        result: dict[str, Any] = answers[0]["result"]
        return result

    def _take_until(self, done: Any, answers: list[dict[str, Any]] | None = None) -> None:
        deadline_s = time.monotonic() + ANSWER_MAX_S
        while not done():
            message, separator, rest = self._buffer.partition(b"\0")
            if not separator:
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, "the browser does not answer"
                if select.select([self._read_fd], [], [], left_s)[0]:
                    piece = os.read(self._read_fd, 1 << 20)
                    assert piece, "the browser has gone"
                    self._buffer += piece
                continue
            self._buffer = rest
            self._take(json.loads(message), answers)

    def _take(self, message: dict[str, Any], answers: list[dict[str, Any]] | None) -> None:
        if message.get("id") == self._number and answers is not None:
            answers.append(message)
        elif "method" in message:
            self._events.append(message)
            parameters = message["params"]
            asked = parameters.get("request", {}).get("url", "")
            if message["method"] == "Network.requestWillBeSent" and not asked.startswith(self._own.partition("#")[0]):
                self.troubles.append(parameters["request"]["url"])
            elif message["method"] in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.troubles.append(json.dumps(parameters))
