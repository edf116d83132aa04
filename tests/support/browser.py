"""A headless browser: Chromium loads a page and says how that went, or is driven over a pipe."""

import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import pytest

#: No network: what a page asks for must come from the page.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
#: In front of everything else on the page: counts errors, and reports when all is loaded.
PROBE = """<script>
const errors = [];
addEventListener("error", e => errors.push(e.message || "failed: " + (e.target.src || e.target.href)), true);
addEventListener("securitypolicyviolation", e => errors.push("policy: " + e.blockedURI));
for (const level of ["error", "warn"]) { console[level] = (...words) => errors.push(words.join(" ")); }
addEventListener("load", () => {
  const report = {
    errors,
    title: document.title,
    images: [...document.images].map(i => [i.alt, i.complete && i.naturalWidth > 0, i.clientWidth]),
    requests: performance.getEntriesByType("resource").map(r => r.name),
    broken: [...document.querySelectorAll('a[href^="#"]')].map(a => a.getAttribute("href"))
      .filter(target => !document.getElementById(target.slice(1))),
    scripts: document.scripts.length - 1,
    acted: ACT,
    wide: document.documentElement.scrollWidth > innerWidth,
  };
  const note = document.createElement("pre");
  note.id = "probe";
  note.textContent = JSON.stringify(report);
  document.body.append(note);
});
</script>"""  # noqa: E501


def chromium() -> str:
    """The browser's command; skips where there is none, but never in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        assert "CI" not in os.environ, "CI has no chromium: apt-get install chromium"
        pytest.skip("no chromium (Debian: apt-get install chromium)")
    return found


def load(page: Path, folder: Path, width: int = 1300, act: str = "null") -> dict:
    """Load a copy of a page that has the probe in it; what the probe reports.

    `act` is JavaScript, run when all is loaded; its value is reported as `acted`.
    """
    command = chromium()
    html = page.read_text(encoding="utf-8")
    assert html.count("<head>") == 1
    copy = page.with_name("probed.html")
    copy.write_text(html.replace("<head>", f"<head>{PROBE.replace('ACT', act)}"), encoding="utf-8")
    try:
        result = subprocess.run(
            [command, *FLAGS, "--virtual-time-budget=10000",
             f"--user-data-dir={folder / 'chromium'}", f"--window-size={width},900", "--dump-dom",
             copy.as_uri()],
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
    finally:
        copy.unlink()  # no artefact of the run
    found = re.search(r'<pre id="probe">(.*?)</pre>', result.stdout, re.DOTALL)
    assert found, result.stderr[-2000:] + result.stdout[-2000:]
    return json.loads(unescape(found[1]))


#: Codes of keys that are no characters.
KEYS = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}
#: Seconds that a page may take for anything.
PATIENCE = 120


class DrivenPage:
    """A page in a browser that is spoken to over two pipes (Chrome's DevTools protocol)."""

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read = write, read
        self.number, self.buffer = 0, b""
        self.session: str | None = None
        #: Whatever the page or the browser complained about.
        self.errors: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.write, json.dumps(command).encode() + b"\0")
        while (message := self._next()).get("id") != self.number:
            parameters = message.get("params", {})
            if message["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(parameters["exceptionDetails"]))
            if message["method"] == "Log.entryAdded":
                self.errors.append(str(parameters["entry"]))
        assert "error" not in message, message
        return message["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            assert select.select([self.read], [], [], PATIENCE)[0], "the browser says nothing"
            self.buffer += os.read(self.read, 1 << 16)
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def value(self, expression: str) -> Any:
        """What JavaScript says on the page."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until JavaScript says something true."""
        end = time.monotonic() + PATIENCE
        while not self.value(expression):
            body = self.value("document.body.innerText")
            assert time.monotonic() < end, f"{expression}\n{body}\n{self.errors}"
            time.sleep(0.1)

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key of the keyboard; `modifiers` 2 is Ctrl."""
        code = KEYS.get(key) or ord(key.upper())
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                modifiers=modifiers, **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def type(self, text: str) -> None:
        """Text, into whatever has the focus."""
        self.call("Input.insertText", text=text)


@contextmanager
def open_page(url: str, folder: Path, width: int) -> Iterator[DrivenPage]:
    """A page that is open in a browser, as wide as a phone's or a desktop's."""
    (ours_read, its_write), (its_read, ours_write) = os.pipe(), os.pipe()
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{its_read} 4>&{its_write}', "bash", chromium(), *FLAGS,
         "--remote-debugging-pipe", f"--user-data-dir={folder / 'chromium'}"],
        pass_fds=(its_read, its_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(its_read)
    os.close(its_write)
    page = DrivenPage(ours_write, ours_read)
    try:
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        attached = page.call("Target.attachToTarget", targetId=target, flatten=True)
        page.session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        page.call("Page.navigate", url=url)
        yield page
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours_write)
        os.close(ours_read)
