"""A headless Chromium, installed or unpacked from a Debian package."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from native.programs import exclusively, libraries, unpack_debian

__all__ = ["chromium"]


@contextmanager
def chromium(
    width: int = 1280, height: int = 900, *, dark: bool = False
) -> Iterator[webdriver.Chrome]:
    """Open a browser window of this size, with a new profile."""
    browser, driver, environment = _find()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        # The browser opens only our pages, and its sandbox does not run as root.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        f"--window-size={width},{height}",
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
    ):
        options.add_argument(argument)
    # Tests read the console log of the page.
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options, Service(driver, env=environment))
    try:
        yield window
    finally:
        window.quit()


def _find() -> tuple[str, str, dict[str, str]]:
    """Return the paths of browser and driver, and their environment."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser and driver:
        return browser, driver, dict(os.environ)
    with exclusively():
        root: Path = unpack_debian("chromium-driver", "usr/bin/chromedriver", print)
    return (
        str(root / "usr/lib/chromium/chromium"),
        str(root / "usr/bin/chromedriver"),
        {**os.environ, **libraries(root)},
    )
