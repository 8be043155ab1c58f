"""A headless Chromium for the tests that look at the page, and a loud word when this machine has none.

Debian's packages chromium and chromium-driver are what it takes. With MODALIGN_REQUIRE_BROWSER=1 a machine without
them fails; without it, the tests that need them are passed over and the summary of the run says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
MISSING = "no headless browser here (Debian: apt-get install chromium chromium-driver)"
_unseen: list[str] = []  # tests passed over for want of a browser


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        if os.environ.get("MODALIGN_REQUIRE_BROWSER") == "1":
            pytest.fail(f"MODALIGN_REQUIRE_BROWSER=1, but {MISSING}", pytrace=False)
        pytest.skip(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    yield window
    window.quit()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and MISSING in str(report.longrepr):
        _unseen.append(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _unseen:
        terminalreporter.section("THE REPORT WAS NOT LOOKED AT IN A BROWSER", sep="!", red=True, bold=True)
        terminalreporter.line(f"{len(_unseen)} tests passed over: {MISSING}.", red=True)
        terminalreporter.line("Set MODALIGN_REQUIRE_BROWSER=1 to make this a failure.", red=True)
