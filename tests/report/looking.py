"""An open page in a browser, for the tests that look at one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

DESKTOP, PHONE = (1280, 900), (390, 844)


class Look:
    """An open page: runs scripts in it and keeps what the browser logged while it was open."""

    def __init__(self, window: webdriver.Chrome, path: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light"):
        self.window = window
        width, height = size
        window.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        window.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        for log in ("browser", "performance"):
            window.get_log(log)  # read away what an earlier page left
        window.get(path.as_uri())
        self.until(
            "return document.readyState === 'complete' && "
            "(!document.getElementById('figures') || document.documentElement.dataset.drawn === 'yes')"
        )

    def run(self, script: str, *arguments: object) -> Any:
        return self.window.execute_script(script, *arguments)  # type: ignore[no-untyped-call]

    def until(self, script: str) -> None:
        WebDriverWait(self.window, 30).until(lambda _: self.run(script))

    def open_everything(self) -> None:
        self.run("document.querySelectorAll('details').forEach((section) => { section.open = true; })")
        self.until("return [...document.querySelectorAll('[data-figure]')].every((place) => place.data)")

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.window.get_log("browser")]

    def requests(self) -> list[str]:
        events = [json.loads(entry["message"])["message"] for entry in self.window.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def drawn(self, figure: str) -> dict[str, Any]:
        """What Plotly drew in one place: {meta of a trace: its x, y and colour}."""
        found = self.run(
            """return document.getElementById(arguments[0]).data.map((t) =>
                 [t.meta, {x: t.x, y: t.y, line: t.line && t.line.color, visible: t.visible}])""",
            figure,
        )
        return dict(found)
