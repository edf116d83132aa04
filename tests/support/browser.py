"""A headless browser without a driver: Chromium loads a page from disk and says how that went."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

#: No network: what a page asks for must come from the page.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000",
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
            [command, *FLAGS, f"--user-data-dir={folder / 'chromium'}",
             f"--window-size={width},900", "--dump-dom", copy.as_uri()],
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
    finally:
        copy.unlink()  # no artefact of the run
    found = re.search(r'<pre id="probe">(.*?)</pre>', result.stdout, re.DOTALL)
    assert found, result.stderr[-2000:] + result.stdout[-2000:]
    return json.loads(unescape(found[1]))
