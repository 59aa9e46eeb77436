"""Install a headless Chromium for the tests of the HTML report.

The exit status is always 0: without a browser, these tests are skipped.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 300


def has_browser() -> bool:
    """Return whether Chromium is installed, by playwright or the system."""
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
    """Install Chromium with playwright or the system's package manager."""
    if has_browser():
        return
    print("== headless Chromium for the tests of the report", flush=True)
    tried(sys.executable, "-m", "playwright", "install", "--only-shell", "chromium")
    if not has_browser() and shutil.which("apt-get") and os.geteuid() == 0:
        tried("apt-get", "update", "-q")
        for name in ("chromium-headless-shell", "chromium"):
            if tried("apt-get", "install", "-y", "-q", "--no-install-recommends", name):
                break
    if not has_browser():
        print("Chromium could not be installed: the tests of the report in a browser are skipped")


if __name__ == "__main__":
    main()
