"""Operates Prefect's UI in a headless Chromium; a program, run by a Python that has Playwright.

    python -m tests.ui.browser URL FOLDER start DEPLOYMENT STORE STEPS
    python -m tests.ui.browser URL FOLDER watch RUN-ID
    python -m tests.ui.browser URL FOLDER answer RUN-ID REMARK
    python -m tests.ui.browser URL FOLDER artifacts RUN-ID KEY …
    python -m tests.ui.browser URL FOLDER cancel RUN-ID

Screenshots go to the folder; what was seen is printed as one JSON object.
"""

import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, sync_playwright

# Seconds that a run may take, and milliseconds that a page may: it shares the machine with what it shows.
_PATIENCE, _PAGE = 900, 60_000
# Milliseconds for a page to draw what it has.
_DRAWN = 3000
_STILL = re.compile(r"\b(Completed|Failed|Crashed|Cancelled|Suspended)\b")


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

    def start(self, deployment: str, store: str, steps: str) -> str:
        """Fill the run form and submit it; returns the text of the form."""
        self._page.get_by_role("link", name=deployment, exact=True).first.click()
        self._page.get_by_role("button", name="Run", exact=True).click()
        self._page.get_by_text("Custom run").click()
        self._field("Store").locator("textarea").fill(store)
        self._page.mouse.wheel(0, -1000)
        self._page.wait_for_timeout(_DRAWN)
        form = self._page.inner_text("body")
        self._shoot("run-form")
        self._field("Approve").get_by_role("switch").click()
        self._field("Training Number Of Steps").locator("input").fill(steps)
        self._page.wait_for_timeout(_DRAWN)
        self._shoot("run-form-train")
        self._page.get_by_role("button", name="Submit").click()
        self._page.wait_for_url(re.compile("tab=Runs"))
        return form

    def open_run(self, identifier: str) -> None:
        """Open a run's page."""
        self._page.goto(f"{self._url}/runs/flow-run/{identifier}")
        self._page.get_by_text("Logs", exact=True).first.wait_for()
        self._page.wait_for_timeout(_DRAWN)

    def watch(self, identifier: str) -> str:
        """Look at the run now and then until it ends or waits for a person; returns that state."""
        deadline = time.monotonic() + _PATIENCE
        shot = False
        while time.monotonic() < deadline:
            self.open_run(identifier)
            header = self._page.inner_text("body").split("Logs")[0]
            state = _STILL.search(header)
            if state:
                self._shoot(state[1].lower())
                return state[1]
            if "Running" in header and not shot:
                shot = True
                self._page.wait_for_timeout(4 * _DRAWN)
                self._shoot("running")
            # The page of a run draws without pause, which takes a whole core from the run itself.
            self._page.goto("about:blank")
            self._page.wait_for_timeout(3 * _DRAWN)
        raise TimeoutError("the run does not end")

    def answer(self, identifier: str, remark: str) -> dict[str, Any]:
        """Answer the question that a run waits with, by yes and a remark; returns the question."""
        self.open_run(identifier)
        self._page.get_by_role("button", name="Resume").first.click()
        question = self._page.get_by_role("dialog")
        self._field("Remark").wait_for()
        self._page.wait_for_timeout(_DRAWN)
        seen = {"text": question.inner_text(), "pictures": self._pictures()}
        self._field("Remark").locator("textarea").fill(remark)
        self._shoot("question")
        self._page.get_by_role("button", name="Submit").click()
        self._page.get_by_role("button", name="Submit").wait_for(state="detached")
        return seen

    def artifacts(self, identifier: str, keys: list[str]) -> dict[str, dict[str, Any]]:
        """Open the run's artifacts, and some of them; what each page tells, and the widths of its pictures."""
        self.open_run(identifier)
        self._page.get_by_text("Artifacts", exact=True).last.click()
        self._page.wait_for_timeout(_DRAWN)
        self._shoot("artifacts")
        cards = self._page.locator("a[href*='/artifacts/artifact/']")
        places = {key: cards.filter(has_text=key).first.get_attribute("href") for key in keys}
        seen = {}
        for key, place in places.items():
            self._page.goto(f"{self._url}{place}")
            self._page.get_by_text("Show raw data").wait_for()
            self._page.wait_for_timeout(_DRAWN)
            seen[key] = {"text": self._page.inner_text("body"), "pictures": self._pictures()}
            self._shoot(key)
        return seen

    def cancel(self, identifier: str) -> Any:
        """Cancel a run from its page; returns what that asked the API for."""
        self.open_run(identifier)
        self._page.get_by_role("button", name="Cancel", exact=True).first.click()
        self._page.wait_for_timeout(1000)
        self._shoot("cancel")
        with self._page.expect_request(re.compile(f"/flow_runs/{identifier}/set_state$")) as asked:
            self._page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
        self._page.wait_for_timeout(_DRAWN)
        return asked.value.post_data_json

    def _field(self, label: str) -> Locator:
        """The innermost part of the form that has a label."""
        text = self._page.get_by_text(f"{label} (Optional)", exact=True)
        return self._page.locator(".schema-form-property").filter(has=text).last

    def _pictures(self) -> list[int]:
        """The widths, in their own pixels, of the pictures of the page; 0: not drawn."""
        widths: list[int] = self._page.evaluate("[...document.images].map(picture => picture.naturalWidth)")
        return widths

    def _shoot(self, name: str) -> None:
        self._page.screenshot(path=str(self._folder / f"{name}.png"))


def main(words: list[str]) -> int:
    url, folder, action, *arguments = words
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(_PAGE)
        print(json.dumps(_act(Ui(page, url, Path(folder)), action, arguments)))
        browser.close()
    return 0


def _act(ui: Ui, action: str, arguments: list[str]) -> Any:
    if action == "start":
        return {"deployments": ui.deployments(), "form": ui.start(*arguments)}
    run, *more = arguments
    if action == "watch":
        return ui.watch(run)
    if action == "answer":
        return ui.answer(run, *more)
    if action == "artifacts":
        return ui.artifacts(run, more)
    return ui.cancel(run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
