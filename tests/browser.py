"""Headless Chromium for tests."""

import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium():
    """Yield Chromium, installed by playwright or the system; skip the test if there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = (
            [own] if os.path.exists(own) else [path for path in map(shutil.which, NAMES) if path]
        )
        if not found:
            pytest.skip("Chromium is not installed; run tools/setup/install_browser.py")
        browser = playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        yield browser
        browser.close()
