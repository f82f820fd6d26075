"""Operates Prefect's UI in a headless Chromium; a program, run by a Python that has Playwright.

    python -m tests.ui.browser URL FOLDER run-form DEPLOYMENT STORE
    python -m tests.ui.browser URL FOLDER watch RUN-ID
    python -m tests.ui.browser URL FOLDER cancel RUN-ID

Screenshots go to the folder; what was seen is printed as one JSON object.
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

# Seconds that a run may take, and milliseconds that a page may.
_PATIENCE, _PAGE = 900, 30_000
_FINAL = re.compile(r"\b(Completed|Failed|Crashed|Cancelled)\b")


class Ui:
    """The pages of a server.

    Args:
        page: of the browser.
        url: of the server.
        folder: for screenshots.
    """

    def __init__(self, page: Page, url: str, folder: Path) -> None:
        self._page, self._url, self._folder = page, url, folder

    def deployments(self) -> list[str]:
        """The names that the page lists."""
        self._page.goto(f"{self._url}/deployments")
        self._page.get_by_role("link", name="train-local", exact=True).first.wait_for()
        self._shoot("deployments")
        return sorted({text.strip() for text in self._page.get_by_role("link").all_inner_texts() if text.strip()})

    def start(self, deployment: str, store: str) -> str:
        """Fill the run form with a store and submit it; returns the text of the form."""
        self._page.get_by_role("link", name=deployment, exact=True).first.click()
        self._page.get_by_role("button", name="Run", exact=True).click()
        self._page.get_by_text("Custom run").click()
        self._page.get_by_text("Store (Optional)").wait_for()
        form = self._page.inner_text("body")
        fields = [field for field in self._page.locator("textarea").all() if field.input_value() == "deeplab-store"]
        fields[0].fill(store)
        self._shoot("run-form")
        self._page.get_by_role("button", name="Submit").click()
        self._page.wait_for_url(re.compile("tab=Runs"))
        return form

    def open_run(self, identifier: str) -> None:
        """Open a run's page."""
        self._page.goto(f"{self._url}/runs/flow-run/{identifier}")
        self._page.get_by_role("tab", name="Logs").or_(self._page.get_by_text("Logs").first).first.wait_for()

    def watch(self, identifier: str) -> str:
        """Look at the run now and then until its end; returns its final state."""
        deadline = time.monotonic() + _PATIENCE
        shot = False
        while time.monotonic() < deadline:
            self.open_run(identifier)
            self._page.wait_for_timeout(3000)
            header = self._page.inner_text("body").split("Logs")[0]
            state = _FINAL.search(header)
            if state:
                self._shoot("run")
                return state[1]
            if "Running" in header and not shot:
                shot = True
                self._page.wait_for_timeout(12_000)
                self._shoot("running")
            # The page of a run draws without pause, which takes a whole core from it here.
            self._page.goto("about:blank")
            self._page.wait_for_timeout(5000)
        raise TimeoutError("the run does not end")

    def artifacts(self) -> str:
        """Open the run's artifacts; returns the text of the page."""
        self._page.get_by_text("Artifacts", exact=True).last.click()
        self._page.wait_for_timeout(3000)
        self._shoot("artifacts")
        return self._page.inner_text("body")

    def cancel(self) -> None:
        """Cancel the run whose page is open, from its menu."""
        self._page.get_by_role("button", name="Cancel", exact=True).first.click()
        self._page.wait_for_timeout(1000)
        self._shoot("cancel")
        self._page.get_by_role("button", name=re.compile("cancel (flow )?run", re.IGNORECASE)).last.click()

    def _shoot(self, name: str) -> None:
        self._page.screenshot(path=str(self._folder / f"{name}.png"))


def main(words: list[str]) -> int:
    url, folder, action, *arguments = words
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(_PAGE)
        ui = Ui(page, url, Path(folder))
        print(json.dumps(_act(ui, action, arguments)))
        browser.close()
    return 0


def _act(ui: Ui, action: str, arguments: list[str]) -> dict[str, Any]:
    if action == "run-form":
        return {"deployments": ui.deployments(), "form": ui.start(*arguments)}
    (run,) = arguments
    if action == "cancel":
        ui.open_run(run)
        ui.cancel()
        return {"state": ui.watch(run)}
    return {"state": ui.watch(run), "artifacts": ui.artifacts()}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
