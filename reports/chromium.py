"""Headless Chromium, driven over the pipe of its DevTools protocol: no server, no driver, no network.

Usage: python reports/chromium.py PAGE.html ... --output FOLDER
Writes a picture of each page, wide and narrow, light and dark, and the page as A4 paper has it, and prints what the
browser complained about.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["Browser", "find_chromium"]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-pipe",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
WIDE, NARROW = 1280, 390  # CSS pixels
_TALLEST = 4_000
_A4 = 8.27, 11.69  # inches
_READ, _WRITE = 3, 4  # the file descriptors that Chromium reads commands from and answers on


def find_chromium() -> str | None:
    """The browser's path; None where none is installed."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class Browser:
    """One page of one browser, with the network off. A context manager."""

    def __init__(self, program: str) -> None:
        self._files = contextlib.ExitStack()
        profile = self._files.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()

        def place() -> None:
            # Copied out of the way first: one of them may have the number that the other is to get.
            pair = os.dup(commands), os.dup(answers)
            for number, target in zip(pair, (_READ, _WRITE), strict=True):
                spare = number
                while spare in (_READ, _WRITE) and spare != target:
                    spare = os.dup(spare)
                os.dup2(spare, target)

        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place,  # noqa: PLW1509
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._pending = b""
        self._count = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.close(self._to)
        self._process.terminate()
        self._process.wait(30)
        os.close(self._from)
        self._files.close()

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command; its result. Events that come before it are noted."""
        self._count += 1
        number = self._count
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def open(self, page: Path, width: int = WIDE, dark: bool = False, media: str = "screen") -> None:
        """Load a page from disk and wait until it stands."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._loaded = False
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._note(self._read())
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def pictures(self, file: Path, tallest: int = _TALLEST) -> None:
        """Write the whole page as PNG; of a page taller than ``tallest`` pixels one below the other: ``NAME-2.png``."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        file.parent.mkdir(parents=True, exist_ok=True)
        for place, top in enumerate(range(0, int(size["height"]), tallest), 1):
            height = min(size["height"] - top, tallest)
            clip = {"x": 0, "y": top, "width": size["width"], "height": height, "scale": 1}
            shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
            path = file if place == 1 else file.with_stem(f"{file.stem}-{place}")
            path.write_bytes(base64.b64decode(shot["data"]))

    def paper(self, file: Path) -> None:
        """Write the page as it is printed on A4, as PDF."""
        printed = self.call("Page.printToPDF", paperWidth=_A4[0], paperHeight=_A4[1], printBackground=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(printed["data"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            chunk = os.read(self._from, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser has gone")
            self._pending += chunk
        message, _, self._pending = self._pending.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        method, values = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {values['exceptionDetails']}")
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(f"console {values['type']}: {[each.get('value') for each in values['args']]}")
        elif method == "Log.entryAdded":
            self.complaints.append(f"log {values['entry']['level']}: {values['entry']['text']}")
        elif method == "Network.loadingFailed":
            self.complaints.append(f"request failed: {values['errorText']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--height", type=int, default=_TALLEST, help="pixels of a picture at most; a taller page has several"
    )
    arguments = parser.parse_args()
    program = find_chromium()
    if program is None:
        sys.exit("no Chromium here: apt-get install chromium")
    with Browser(program) as browser:
        for page in arguments.pages:
            for width in (WIDE, NARROW):
                for dark in (False, True):
                    browser.open(page, width, dark)
                    name = f"{page.stem}-{width}-{'dark' if dark else 'light'}.png"
                    browser.pictures(arguments.output / name, arguments.height)
            browser.open(page, media="print")
            browser.paper(arguments.output / f"{page.stem}.pdf")
    outside = [url for url in browser.requests if not url.startswith(("file:", "data:"))]
    print(f"{len(arguments.pages)} pages, {len(browser.requests)} requests, {len(outside)} of them to a network")
    print("\n".join(browser.complaints) or "no complaint")


if __name__ == "__main__":
    main()
