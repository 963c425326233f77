"""Headless Chromium, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# in the page's head: what went wrong, for a script behind it to tell
LISTENS = """<script>
const problems = [];
addEventListener("error", (event) => problems.push(event.message));
addEventListener("securitypolicyviolation", (event) => problems.push(event.blockedURI));
for (const name of ["error", "warn"]) console[name] = (...told) => problems.push(told.join(" "));
</script>"""


def page_after_acts(address: str, scratch: Path, *options: str) -> str:
    """A page's elements after its scripts ran; skips the test where there is no browser.

    Args:
        scratch: a folder for the browser.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: the Debian package chromium brings one")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", *options,
         f"--user-data-dir={scratch / 'browser'}", "--dump-dom", address],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout
