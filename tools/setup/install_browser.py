"""Install a headless Chromium for the tests of the HTML report.

Ends with status 0 in any case: without a browser those tests are skipped and say so.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 300


def has_browser() -> bool:
    """Return whether playwright's Chromium or one of the system is installed."""
    if any(map(shutil.which, NAMES)):
        return True
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return os.path.exists(playwright.chromium.executable_path)


def tried(*command: str) -> bool:
    """Run a command without output; returns whether it succeeded."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def main() -> None:
    """Try one source after the other."""
    if has_browser():
        return
    print("== a headless Chromium for the tests of the report", flush=True)
    tried(sys.executable, "-m", "playwright", "install", "--only-shell", "chromium")
    if not has_browser() and shutil.which("apt-get") and os.geteuid() == 0:
        tried("apt-get", "update", "-q")
        for name in ("chromium-headless-shell", "chromium"):
            if tried("apt-get", "install", "-y", "-q", "--no-install-recommends", name):
                break
    if not has_browser():
        print("no Chromium could be installed: the tests that look at the report are skipped")


if __name__ == "__main__":
    main()
