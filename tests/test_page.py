"""The page in a real Chromium: what a stranger does, from the first picture to a study's plot."""

from __future__ import annotations

import csv
import io
import re
import shlex
import signal
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import expunge
from browser import CHROMIUM, FLAGS, Served, serving
from crowd import Visitor, audited, event, opening
from expunge.cli import main
from expunge.edit import Edit
from expunge.study import design
from expunge.study.store import Answers
from expunge.web.shelf import Shelf
from tiny import sd2

SMALL = "steps=12\nlatents=3\ngrid=3\nbatch=2\ncontexts=[]\nkeep=[]"
SLOW = SMALL.replace("12", "9000")
PATIENCE = 120_000
VISITORS, POLLS, ANSWERS = 50, 4, 4


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that the server was started with."""
    folder = tmp_path_factory.mktemp("rated")
    design.new([audited(folder / "audit")], folder / "shapes", pictures=6, each=12)
    return folder / "shapes"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, study: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    expunge.erase("car", method="uce-2025", out=folder / "given.safetensors")
    sd2().save_pretrained(folder / "other")
    models = ["--model", "smallworld", "--model", str(folder / "other")]
    with serving(
        folder / "folder", *models, "--edit", str(folder / "given.safetensors"), "--study", str(study)
    ) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("no Chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    yield from opened(browser, served.address)


def opened(browser: Any, address: str, **more: Any) -> Iterator[Any]:
    """A fresh visitor; nothing may go wrong unseen, nor may anything be asked of another machine."""
    refused = more.pop("refused", "nothing")
    context = browser.new_context(viewport=more.pop("viewport", {"width": 1280, "height": 900}), **more)
    page, wrong, asked = context.new_page(), [], []
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    context.close()
    assert [text for text in wrong if refused not in text] == []
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def begin(page: Any, concept: str, options: str = "", card: str = "Tuned for objects") -> str:
    """Starts an erasure as one does; its id."""
    page.fill("#concepts textarea, #concepts input", concept)
    page.get_by_role("radio", name=re.compile(f"^{card}")).check()
    if options and not page.locator("#options textarea").is_visible():
        page.get_by_role("button", name="More choices").click()
    if options:
        page.fill("#options textarea", options)
    known = page.input_value("#runs input")
    page.click("#start")
    page.wait_for_function("known => document.querySelector('#runs input').value !== known", arg=known)
    page.wait_for_selector(f"#run section[aria-label^='run {concept} by']")
    return str(page.input_value("#runs input")).partition(":")[0]


def told(page: Any, place: str) -> str:
    """The command line that is shown."""
    page.wait_for_function("place => document.querySelector(place + ' textarea').value", arg=place)
    return str(page.input_value(f"{place} textarea"))


def done(page: Any) -> None:
    page.wait_for_selector("#run .x-done, #run .x-failed")
    assert page.locator("#run .x-done").count(), page.inner_text("#run")


def changes(page: Any, times: int) -> None:
    """Until so many different pictures stood at one place."""
    seen = set[str]()
    while len(seen) < times:
        seen.add(page.locator("#run .x-two img").nth(1).get_attribute("src"))
        page.wait_for_timeout(100)


def choose(page: Any, run: str) -> None:
    page.locator("#runs input").click()
    page.get_by_role("option", name=re.compile(f"^{run}")).click()


def edit(served: Served, id: str) -> Edit:
    return Edit.load(Shelf(served.folder).edit(id))


def test_a_stranger_erases_within_a_minute(
    page: Any, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.monotonic()
    page.wait_for_selector("#preview img")
    assert time.monotonic() - begun < 5, "the first picture"
    page.get_by_role("button", name="Orsini").click()
    page.get_by_role("radio", name=re.compile("^A quick first look")).check()
    page.click("#start")
    page.wait_for_selector("#run .x-running, #run .x-done")
    page.wait_for_selector("#run .x-film img")
    done(page)
    assert time.monotonic() - begun < 60
    pictures = page.locator("#run .x-two").first.locator("img")
    assert pictures.nth(0).get_attribute("src") != pictures.nth(1).get_attribute("src")
    assert pictures.nth(1).evaluate("picture => picture.complete && picture.naturalWidth") == 3 * 64
    line = told(page, "#command")
    assert line == "expunge erase --method smallworld-quick --frames frames --out orsini.safetensors -- Orsini"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(shlex.split(line)[1:])
    assert Edit.load(tmp_path / "orsini.safetensors").hash == edit(served, "orsini").hash


def test_pictures_change_and_stop_and_go_on_keep_the_bits(page: Any, served: Served, tmp_path: Path) -> None:
    options = SMALL.replace("12", "36")
    id = begin(page, "car", options)
    changes(page, 2)
    page.wait_for_selector("#run progress")
    assert page.locator("#run .x-running").count()
    page.click("#stop")
    page.wait_for_selector("#run .x-stopped")
    assert 0 < int(page.get_attribute("#run progress", "value") or 0) < 36
    page.click("#resume")
    page.wait_for_selector("#run .x-running")
    done(page)
    assert "--resume" not in told(page, "#command")
    command = ["erase", "car", "--method", "smallworld-object", *(f"--set={line}" for line in options.splitlines())]
    with pytest.raises(SystemExit):
        main([*command, "--out", str(tmp_path / "car.safetensors")])
    assert edit(served, id).hash == Edit.load(tmp_path / "car.safetensors").hash, "as one that was left alone"


def test_before_and_after_under_a_slider_and_a_dial(page: Any) -> None:
    page.wait_for_selector("#preview img")
    tab(page, "Look")
    page.wait_for_timeout(500)
    page.locator("#edit-1 input").click()
    page.get_by_role("option", name="given", exact=True).click()
    page.fill("#prompt textarea, #prompt input", "a red car in the city")
    page.click("#draw")
    page.wait_for_selector("#pair .x-slider")
    over = page.locator("#pair .x-over")
    page.locator("#pair .x-slider input").focus()
    page.keyboard.press("Home")
    assert "100%" in over.evaluate("picture => picture.style.clipPath"), "the keyboard moves it"
    before, after = (page.locator("#pair .x-grid tr").nth(i).locator("img") for i in (0, 1))
    assert before.count() == after.count() == 4
    assert before.nth(0).get_attribute("src") != after.nth(0).get_attribute("src")
    page.fill("#strength-1 input[type=number]", "0")
    page.locator("#strength-1 input[type=number]").press("Tab")
    page.click("#draw")
    page.wait_for_selector("#pair .x-slider", state="detached")
    page.get_by_role("button", name="Put more on it").click()
    page.locator("#guidance input").click()
    page.get_by_role("option", name="sld-max", exact=True).click()
    page.fill("#away textarea, #away input", "car")
    page.click("#draw")
    page.wait_for_selector("#pair .x-slider")
    assert "--guidance sld-max --concept=car" in told(page, "#draw-command")
    page.get_by_role("button", name="Where does a word live?").click()
    page.click("#watch")
    page.wait_for_selector("#maps img")


def test_another_model_has_edits_of_its_own(page: Any) -> None:
    page.wait_for_selector("#preview img")
    page.click("#model input")
    page.get_by_role("option", name=re.compile("other$")).click()
    page.wait_for_selector("#cards label:has-text('ESD-u')")
    other = begin(page, "cat", "steps=2\nlatents=1\ngrid=2\nbatch=1", "Recommended")
    done(page)
    assert re.search("--model .*/other .*cat", told(page, "#command"))
    page.click("#look-at")
    page.wait_for_function("id => document.querySelector('#edit-1 input')?.value === id", arg=other)
    page.click("#draw")
    page.wait_for_selector("#pair .x-slider")
    tab(page, "Judge")
    page.wait_for_selector(f"#judged label:has-text('{other}')")
    page.click("#model input")
    page.get_by_role("option", name="smallworld", exact=True).click()
    page.wait_for_selector(f"#judged label:has-text('{other}')", state="detached")


def test_an_audit_is_run_opened_and_compared(page: Any) -> None:
    page.wait_for_selector("#preview img")
    tab(page, "Judge")
    page.wait_for_selector("#judged input:checked")
    page.locator("#protocol input").click()
    page.get_by_role("option", name=re.compile("^smallworld-objects")).click()
    page.fill("#limit input", "20")
    page.click("#judge")
    page.wait_for_selector("#audit iframe", timeout=2 * PATIENCE)
    report = page.frame_locator("#audit iframe")
    report.get_by_role("heading", name=re.compile("gone, and what else changed")).wait_for()
    veiled, blur = report.locator("label.veil"), "picture => getComputedStyle(picture).filter"
    assert "blur" in veiled.first.locator("img").evaluate(blur)
    veiled.first.locator("input").check()
    assert veiled.first.locator("img").evaluate(blur) == "none"
    page.get_by_role("button", name="Side by side").click()
    page.locator("#several input").first.check()
    page.click("#compare")
    page.wait_for_selector("#comparison svg")
    assert "all else" in page.inner_text("#comparison")


def test_an_edit_goes_and_comes_back(page: Any, served: Served, tmp_path: Path) -> None:
    page.wait_for_selector("#preview img")
    tab(page, "Keep")
    page.wait_for_selector("#edit-facts a")
    page.locator("#kept input").click()
    page.get_by_role("option", name="given", exact=True).click()
    page.wait_for_selector("#edit-facts a[href$='/given']")
    with page.expect_download() as waiting:
        page.click("#edit-facts a")
    file = tmp_path / "mine.safetensors"
    waiting.value.save_as(file)
    given = Edit.load(file)
    page.set_input_files("#bring input[type=file], input[type=file]", str(file))
    page.wait_for_function("() => document.querySelector('#kept input').value === 'mine'")
    assert edit(served, "mine").hash == given.hash
    page.click("#make")
    page.wait_for_selector("#export-run a")
    with page.expect_download() as waiting:
        page.click("#export-run a")
    lora = tmp_path / "lora.safetensors"
    waiting.value.save_as(lora)
    page.set_input_files("#bring input[type=file], input[type=file]", str(lora))
    page.wait_for_function("() => document.querySelector('#exports input').value.startsWith('lora:')")
    page.wait_for_selector("#export-run section[aria-label^='run lora'] .x-done")
    assert len(edit(served, "lora").delta) == len(given.delta), "another tool's file is read too"
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing of the kind")
    page.set_input_files("#bring input[type=file], input[type=file]", str(bad))
    assert "bad.safetensors" in message(page)


def message(page: Any) -> str:
    """What the page complains of."""
    toast = page.locator(".toast-body, [data-testid='toast-body']").first
    toast.wait_for()
    return str(toast.inner_text())


def test_a_study_from_its_making_to_its_plot(browser: Any, page: Any, served: Served) -> None:
    page.wait_for_selector("#preview img")
    tab(page, "Study")
    page.wait_for_selector("#study-audits input:checked")
    page.get_by_role("radio", name="both").check()
    page.click("#make-study")
    link = page.wait_for_selector("#study-results section[aria-label^='study audit'] a").inner_text()
    assert link.startswith(f"{served.address}/rate/")
    for _ in range(2):
        for rater in opened(browser, link, viewport={"width": 390, "height": 800}):
            rater.get_by_role("button", name=re.compile("begin", re.IGNORECASE)).click()
            rate(rater, design.load(next((served.folder / "studies").iterdir())))
    page.click("#count-again")
    page.wait_for_selector("#study-results svg")
    text = page.inner_text("#study-results")
    assert "2 began, 2 finished" in text
    assert "Krippendorff" in text
    with page.expect_download() as waiting:
        page.get_by_role("link", name="all answers as CSV").click()
    rows = [*csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text()))]
    assert {row["rater"] for row in rows} == {"1", "2"}


def rate(page: Any, study: design.Study) -> None:
    """Answers all that is asked, and what a check says."""
    page.wait_for_selector("button[name=rating]")
    assert sideways(page) <= 0
    while page.locator("button[name=rating]").count():
        item = study.by_id[int(page.input_value("input[name=item]"))]
        page.locator(f"button[name=rating][value='{item.want or 1 + item.id % 5}']").click()
        page.wait_for_load_state()
    page.get_by_text(re.compile("thank", re.IGNORECASE)).wait_for()


def sideways(page: Any) -> int:
    """Pixels that the page is wider than the screen."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


WRONG = {
    "": "nothing to erase",
    "car -> a truck": "give 'truck', not 'a truck'",
}
OPTIONS = {
    "sttteps=3": "did you mean 'steps'",
    "steps=half": "a valid integer",
    "scope=re:(a+)+$": "a scope is one of",
    "file=/etc/passwd": "unknown key",
}


def test_wrong_inputs_are_told_in_a_line(page: Any, served: Served) -> None:
    page.wait_for_selector("#preview img")
    before = len(Shelf(served.folder).jobs())
    page.get_by_role("button", name="More choices").click()
    tried = [(concept, "", wanted) for concept, wanted in WRONG.items()]
    for concept, options, wanted in tried + [("car", option, wanted) for option, wanted in OPTIONS.items()]:
        page.fill("#concepts textarea, #concepts input", concept)
        page.fill("#options textarea", options)
        page.locator("#options textarea").press("Tab")
        refused(page, wanted)
    assert len(Shelf(served.folder).jobs()) == before, "nothing was begun"


def refused(page: Any, wanted: str) -> None:
    """Until it is told: a click while the answer to the one before is on its way counts for nothing."""
    found = page.get_by_text(wanted).last
    for _ in range(60):
        page.click("#start")
        page.wait_for_timeout(500)
        if found.is_visible():
            return
    raise AssertionError(f"{wanted!r} is not told")


def test_a_narrow_screen_scrolls_only_down_light_and_dark(browser: Any, served: Served) -> None:
    for page in opened(browser, served.address, viewport={"width": 390, "height": 844}, color_scheme="dark"):
        page.wait_for_selector("#preview img")
        assert shade(page) < 100
        for name in ("Look", "Judge", "Keep", "Study", "Erase"):
            if not page.get_by_role("tab", name=name, exact=True).is_visible():
                page.locator("#tabs .overflow-menu > button").click()
                page.locator("#tabs .overflow-dropdown button", has_text=name).click()
            else:
                tab(page, name)
            page.wait_for_timeout(200)
            assert sideways(page) <= 0, name
    for page in opened(browser, served.address, color_scheme="light"):
        page.wait_for_selector("#preview img")
        assert shade(page) > 200


def shade(page: Any) -> int:
    """Of the ground, 0 to 255."""
    return max(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]))


def going(served: Served) -> str:
    """An erasure that runs, and goes on."""
    shelf, visitor = Shelf(served.folder), Visitor(served.address)
    running = [job.id for job in shelf.jobs() if shelf.state(job) == "running"]
    if running:
        return running[0]
    config = visitor("GET", "/config").json()
    form = {"data": ["boat", "smallworld", "auto", "esd-x", 0, SLOW], "session_hash": "first"}
    visitor("POST", "/gradio_api/queue/join", json=form | {"fn_index": event(config, "start", "click")})
    end = time.monotonic() + 100
    while not (shelf.runs / "boat" / "boat.jsonl").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    return "boat"


def test_fifty_visitors_browse_and_rate_while_one_erases(served: Served, study: Path) -> None:
    run, shelf, token = going(served), Shelf(served.folder), design.load(study).token
    visitors = [Visitor(served.address) for _ in range(VISITORS)]
    config = visitors[0]("GET", "/config").json()

    def visit(visitor: Visitor) -> str:
        visitor.browse()
        assert visitor.ask(opening(config, "runs"), [])[0]["value"] == run
        for n in range(POLLS):
            seen = visitor.ask(event(config, "runs", "change"), [run, ""])
            assert n or shelf.job(run).title in seen[0]  # later ones tell what has changed
        return visitor.rate(token, ANSWERS)

    with ThreadPoolExecutor(VISITORS) as crowd:
        raters = [*crowd.map(visit, visitors)]
    assert shelf.state(shelf.job(run)) == "running", "all the while"
    found = Answers(study)
    assert {rater: len(found.answered(rater)) for rater in raters} == dict.fromkeys(raters, ANSWERS)
    assert len(set(raters)) == VISITORS
    assert statistics.median(t for visitor in visitors for t in visitor.times) < 1


def test_a_run_outlives_the_browser_and_the_server_and_a_password_keeps_strangers_out(
    browser: Any, served: Served, study: Path, tmp_path: Path
) -> None:
    run = going(served)
    for page in opened(browser, served.address):
        page.wait_for_selector("#run .x-running")
        assert page.input_value("#runs input").startswith(f"{run}:")
        changes(page, 2)
        begin(page, "cup", SMALL)
        page.wait_for_selector("#run .x-waiting")
        assert "1 run before it" in page.inner_text("#run")
    code, said = served.stop()
    assert (code, said.splitlines()[-1]) == (143, "expunge: ended; what was going on can go on later")
    assert not (served.folder / ".visitors").exists()
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    closed = ("--host", "0.0.0.0", "--password-file", str(secret), "--study", str(study))
    with serving(served.folder, *closed) as again:
        address = again.address.replace("0.0.0.0", "127.0.0.1")
        for page in opened(browser, address, refused="403"):
            page.fill("input[type=password]", "open barley")
            page.click("button")
            page.get_by_text("wrong password").wait_for()
            page.goto(f"{address}/files/given")
            assert page.url == f"{address}/login"
            page.goto(f"{address}/rate/{design.load(study).token}")
            page.get_by_role("button", name=re.compile("begin", re.IGNORECASE)).wait_for()
            page.goto(address)
            page.fill("input[type=password]", "open sesame")
            page.click("button")
            page.wait_for_selector("#run .x-stopped")
            choose(page, f"{run}:")
            page.wait_for_selector("#resume", state="visible")
            page.click("#resume")
            page.wait_for_selector("#run progress")
            assert int(page.get_attribute("#run progress", "value") or 0) > 1, "it goes on where it was"
        assert again.stop(signal.SIGINT)[0] == 130
