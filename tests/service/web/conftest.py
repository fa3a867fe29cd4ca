"""Services and a browser for the tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quick_pipeline import LOAD
from running import CHROMIUM, Running, started

from triage.service.service import Service
from triage.settings import Settings

# WebGL 2 by software; no word to anybody outside.
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("pages") / "home"
    service = Service(Settings(home=home, dicom_port=0, embedded_worker=False), load=LOAD)
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright; skips where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"no browser at {CHROMIUM}: install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def quick(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`triage serve` with the quick analysis, as a process that can be killed."""
    with started(tmp_path_factory.mktemp("quick") / "home") as running:
        yield running
