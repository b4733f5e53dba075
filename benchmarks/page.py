"""The page: how soon it is there, the first picture, and an erasure; and its pictures for the docs.

python benchmarks/page.py [--pictures docs] [--visitors 50]

Needs Chromium at /usr/bin/chromium and playwright. Seconds from the command until the page answers; from opening it
until the first picture; from the click until the first frame, and until the concept is gone; then so many visitors at
once, each with a page, its style, a look at the run and four rated pictures, while another erasure runs.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from playwright.sync_api import sync_playwright

from browser import CHROMIUM, FLAGS, serving
from crowd import Visitor
from expunge.study import design

Rows = list[tuple[str, float]]


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    page.wait_for_timeout(800)


def shot(page: Any, folder: Path | None, name: str, height: int = 900) -> None:
    if folder:
        page.mouse.move(0, 0)
        page.wait_for_timeout(600)
        page.screenshot(
            path=folder / f"page-{name}.png", clip={"x": 0, "y": 0, "width": 1280, "height": height}, full_page=True
        )


def erased(page: Any, folder: Path | None) -> Rows:
    page.get_by_role("radio", name=re.compile("^Tuned for objects")).check()
    begun = time.monotonic()
    page.click("#start")
    page.wait_for_selector("#run .x-film img")
    first = time.monotonic() - begun
    page.wait_for_function("() => Number(document.querySelector('#run progress')?.value) > 70", timeout=300_000)
    shot(page, folder, "erase", 1220)
    page.wait_for_selector("#run .x-done", timeout=300_000)
    return [("from the click to the first picture of the run", first), ("to the end", time.monotonic() - begun)]


def looked(page: Any, folder: Path | None) -> Rows:
    page.click("#look-at")
    page.wait_for_timeout(500)
    begun = time.monotonic()
    page.click("#draw")
    page.wait_for_selector("#pair .x-slider img")
    took = time.monotonic() - begun
    shot(page, folder, "look", 1000)
    return [("four pictures before and after", took)]


def judged(page: Any, folder: Path | None) -> Rows:
    tab(page, "Judge")
    page.fill("#limit input", "120")
    begun = time.monotonic()
    page.click("#judge")
    page.wait_for_selector("#audit iframe", timeout=600_000)
    took = time.monotonic() - begun
    page.wait_for_timeout(1500)
    shot(page, folder, "judge", 1300)
    tab(page, "Keep")
    page.wait_for_selector("#edit-facts a")
    shot(page, folder, "keep", 760)
    return [("an audit of 120 pictures a row", took)]


def studied(page: Any, folder: Path | None, studies: Path) -> str:
    """A study that three people answer; its token."""
    tab(page, "Study")
    page.click("#make-study")
    page.wait_for_selector("#study-results a")
    study = design.load(next(studies.iterdir()))
    for careless in (0, 1, 1):
        rated(page, study, careless, folder if not careless else None)
    page.click("#count-again")
    page.wait_for_selector("#study-results svg")
    shot(page, folder, "study", 900)
    return study.token


def rated(page: Any, study: design.Study, careless: int, folder: Path | None) -> None:
    """Somebody who sees what the row is: 5 of the base, 1 or 2 of the rest; on a phone."""
    context = page.context.browser.new_context(viewport={"width": 390, "height": 760})
    rater = context.new_page()
    rater.goto(f"{page.url.rstrip('/')}/rate/{study.token}")
    rater.get_by_role("button", name=re.compile("begin", re.IGNORECASE)).click()
    rater.wait_for_selector("button[name=rating]")
    if folder:
        rater.wait_for_load_state("load")
        rater.screenshot(path=folder / "page-rate.png")
    while rater.locator("button[name=rating]").count():
        item = study.by_id[int(rater.input_value("input[name=item]"))]
        said = item.want or (5 if item.row == "base" else 1 + (careless and item.id % 2))
        rater.locator(f"button[name=rating][value='{said}']").click()
        rater.wait_for_load_state()
    context.close()


def crowd(page: Any, address: str, token: str, visitors: int) -> Rows:
    """While a long erasure runs."""
    tab(page, "Erase")
    page.get_by_role("button", name="More choices").click()
    page.fill("#options textarea", "steps=5000")
    page.click("#start")
    page.wait_for_selector("#run progress", timeout=120_000)

    def visit(_: int) -> list[float]:
        visitor = Visitor(address)
        visitor.browse()
        visitor.rate(token, 4)
        return visitor.times

    with ThreadPoolExecutor(visitors) as pool:
        times = sorted(t for found in pool.map(visit, range(visitors)) for t in found)
    page.click("#stop")
    page.wait_for_selector("#run .x-stopped", timeout=60_000)
    middle, last = statistics.median(times), times[-1]
    return [(f"{visitors} visitors, {len(times)} requests: median", middle), ("the slowest of them", last)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the page")
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, begun = Path(folder) / "page", time.monotonic()
        with serving(place) as served, sync_playwright() as play:
            rows: Rows = [("from the command to the page", time.monotonic() - begun)]
            browser = play.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS])
            page, begun = browser.new_page(viewport={"width": 1280, "height": 900}), time.monotonic()
            page.goto(served.address)
            page.wait_for_selector("#preview img")
            rows.append(("from opening it to the first picture", time.monotonic() - begun))
            rows += [*erased(page, given.pictures), *looked(page, given.pictures), *judged(page, given.pictures)]
            token = studied(page, given.pictures, place / "studies")
            rows += crowd(page, served.address, token, given.visitors)
            browser.close()
    for name, value in rows:
        print(f"| {name} | {value:.2f} s |")
    if given.json:
        given.json.write_text(json.dumps(dict(rows), indent=2))


if __name__ == "__main__":
    main()
