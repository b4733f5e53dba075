"""The raters' pages: blind, whole under many at once, and calm about whatever a stranger sends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from expunge.study.design import Study, new
from expunge.study.order import order
from expunge.study.store import Answers
from expunge.web.rating import POLICY, rating
from test_study import PROMPTS, audit_at

ROWS = ("base", "secret-row", "other-row")


def served(folder: Path, **options: Any) -> tuple[Answers, FastAPI]:
    made = new([audit_at(folder / "audit", ROWS)], folder / "study", **options)
    app = FastAPI()
    app.include_router(rating(lambda: {made.token: folder / "study"}))
    return Answers(folder / "study"), app


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Answers, FastAPI]:
    """A study of which nobody gets to answer anything: raters see three pictures and two checks."""
    return served(tmp_path_factory.mktemp("small"), pictures=1, each=3)


def browser(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=True)


class Page(HTMLParser):
    """What of a page a test looks at: its tags, each with its attributes."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [own for name, own in self.tags if name == tag]

    def form(self) -> dict[str, str]:
        return {str(i["name"]): str(i["value"]) for i in self.all("input")}

    def back(self) -> str:
        return str(self.all("a")[-1]["href"])


def begun(client: TestClient, study: Study) -> httpx.Response:
    """The first picture's page, by the form of the start page."""
    page = Page(client.get(f"/rate/{study.token}"))
    assert page.all("form") == [{"method": "post"}]
    return client.post(f"/rate/{study.token}")


def chosen(client: TestClient, response: httpx.Response, value: int) -> httpx.Response:
    """The next page, by a button of this one."""
    page = Page(response)
    assert str(value) in [b["value"] for b in page.all("button")]
    address = response.url.join(str(page.all("form")[0]["action"]))
    return client.post(address, data=page.form() | {"rating": str(value)})


def test_a_rater_goes_through_and_back(tmp_path: Path) -> None:
    answers, app = served(tmp_path, pictures=2)
    client = browser(app)
    page = begun(client, answers.study)
    (rater,) = answers.raters()
    own = order(answers.study, rater)
    assert len(own) == 8 and page.url.path == f"/rate/{answers.study.token}/{rater}"
    for i, item in enumerate(own):
        assert f"{i + 1} of 8" in page.text and int(Page(page).form()["item"]) == item
        page = chosen(client, page, 1 + i % 5)
    assert "Thank you" in page.text and answers.answered(rater) == {item: 1 + i % 5 for i, item in enumerate(own)}
    page = client.get(page.url.join(Page(page).back()))
    assert "8 of 8" in page.text and [b["value"] for b in Page(page).all("button") if b.get("class")] == ["3"]
    page = client.get(page.url.join(Page(page).back()))
    assert "7 of 8" in page.text
    assert "Thank you" in chosen(client, page, 5).text
    assert answers.answered(rater)[own[6]] == 5 and answers.answered(rater)[own[7]] == 3
    assert all(a.shown is not None and a.shown <= a.answered for a in answers.rows())


def test_a_rater_goes_on_where_they_were(tmp_path: Path) -> None:
    answers, app = served(tmp_path)
    page = chosen(browser(app), begun(browser(app), answers.study), 4)
    again = browser(app).get(page.url.path)
    assert Page(again).form()["item"] == Page(page).form()["item"] and "2 of" in again.text


def test_nothing_tells_the_row(tmp_path: Path) -> None:
    """Not a page, an address, a header, an alternative text, or the bytes besides the picture's own."""
    answers, app = served(tmp_path, question="Is it there?")
    client = browser(app)
    page = begun(client, answers.study)
    seen = [client.get(f"/rate/{answers.study.token}"), page]
    for i in range(len(order(answers.study, answers.raters()[0]))):
        picture = client.get(page.url.join(str(Page(page).all("img")[0]["src"])))
        assert picture.status_code == 200 and picture.headers["cache-control"] == "private, max-age=3600"
        assert Page(page).all("img")[0]["alt"] == f"picture {i + 1}"
        page = chosen(client, page, 3)
        seen += [picture, page, *page.history]
    secrets = [*ROWS, *(word for prompt in PROMPTS for word in (prompt, prompt.replace(" ", "-"))), str(tmp_path)]
    secrets += [item.file.removesuffix(".png") for item in answers.study.items]
    for response in seen:
        assert response.headers.pop("content-security-policy") == POLICY, "which says base-uri"
        everything = f"{response.url} {response.headers} {response.content.decode('latin-1')}"
        assert not [s for s in secrets if re.search(rf"\b{re.escape(s)}\b", everything)], response.url
        assert "etag" not in response.headers and "last-modified" not in response.headers


def test_the_pictures_are_those_of_the_list(tmp_path: Path) -> None:
    answers, app = served(tmp_path)
    client, rater = browser(app), answers.begin()
    own = order(answers.study, rater)
    for n, item in enumerate(own, 1):
        found = client.get(f"/rate/{answers.study.token}/{rater}/{n}.png")
        file = answers.folder / "pictures" / answers.study.by_id[item].file
        assert found.content == file.read_bytes() and found.headers["content-type"] == "image/png"
        assert Image.open(file).size in ((32, 32), (256, 256))


def test_thirty_at_once_lose_nothing(tmp_path: Path) -> None:
    answers, app = served(tmp_path, pictures=2, about="all")

    def goes_through(k: int) -> str:
        with browser(app) as client:
            page = begun(client, answers.study)
            path = page.url.path
            while "Thank you" not in page.text:
                page = chosen(client, page, 1 + (k + int(Page(page).form()["item"])) % 5)
            return path.rpartition("/")[2]

    with ThreadPoolExecutor(30) as pool:
        raters = [*pool.map(goes_through, range(30))]
    assert {*raters} == {*answers.raters()} and len({*raters}) == 30
    for k, rater in enumerate(raters):
        assert answers.answered(rater) == {i: 1 + (k + i) % 5 for i in order(answers.study, rater)}


FORMS: list[bytes] = [
    b"", b"rating=3", b"item=0", b"item=0&rating=3", b"item=0&rating=6&shown=1", b"item=0&rating=0&shown=1",
    b"item=0&rating=-1&shown=1", b"item=0&rating=3.5&shown=1", b"item=0&rating=nan&shown=1", b"item=&rating=&shown=",
    b"item=0&rating=3&shown=inf", b"item=1e3&rating=3&shown=1", b"item=99999&rating=3&shown=1",
    b"item=999999999999999999999999&rating=3&shown=1", b"item=0&rating=3&shown=99999999999999999999",
    b"item='; DROP TABLE answers; --&rating=3&shown=1", b"item=0&rating=%ff%fe&shown=1", b"\xff\xfe\x00", b"item=%00",
    b"item=\xd9\xa1&rating=\xd9\xa3&shown=1", b"item=0&rating=3&shown=1" + b"&x=1" * 20, b"x" * 5000,
    b'{"item": 0, "rating": 3}', b"item=0;rating=3;shown=1", b"item=0&rating=3&shown=1&x=" + b"9" * 5000,
]  # fmt: skip
"""What no button of ours sends."""


def calm(response: httpx.Response) -> bool:
    """A page with one clear line."""
    page = response.text
    return response.status_code in (404, 422) and "This did not work" in page and "Traceback" not in page


@pytest.mark.parametrize("body", FORMS, ids=lambda b: repr(b[:24]))
def test_strange_forms(small: tuple[Answers, FastAPI], body: bytes) -> None:
    answers, app = small
    client, rater = browser(app), answers.begin()
    address = f"/rate/{answers.study.token}/{rater}"
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "nonsense"):
        assert calm(client.post(address, content=body, headers={"content-type": kind}))
    assert answers.answered(rater) == {} and client.get(address).status_code == 200


def test_strange_addresses(small: tuple[Answers, FastAPI]) -> None:
    answers, app = small
    client, rater, token = browser(app), answers.begin(), answers.study.token
    own = order(answers.study, rater)
    wrong = [f"/rate/{t}" for t in ("x", "..", "%2e%2e", "%00", "a" * 3000, "é")]
    wrong += [f"/rate/{token}/{r}" for r in ("x", "%00", "'--", "%ff", "é", rater[:-1])]
    wrong += [f"/rate/{token}/x/1.png", f"/rate/x/{rater}/1.png", f"/rate/x/{rater}"]
    names = ("0.png", "-1.png", "6.png", "1.jpg", "1", "1.png.png", "01.png", "x.png", "99999999999999.png", "1%0a.png")
    wrong += [f"/rate/{token}/{rater}/{name}" for name in (*names, "study.json", "%2e%2e")]
    wrong += [f"/rate/{token}/{rater}?item={i}" for i in ("x", "-1", "", "99", "1e1", "9" * 40, "%00")]
    assert f"{len(own)}.png" == "5.png"
    for address in wrong:
        found = client.get(address)
        assert calm(found) or (found.status_code == 404 and {"..", "%2e%2e"} & {*address.split("/")}), address
    for address in (f"/rate/{token}/{rater[:-1]}", f"/rate/x/{rater}"):
        assert calm(client.post(address, content=f"item={own[0]}&rating=3&shown=1"))
    assert calm(client.post("/rate/x"))
    assert answers.rows() == []


def test_a_study_that_breaks_is_told_without_its_place(tmp_path: Path) -> None:
    answers, app = served(tmp_path)
    client, rater = browser(app), answers.begin()
    assert client.get(f"/rate/{answers.study.token}").status_code == 200
    for name, address in [("pictures", f"{rater}/1.png"), ("answers.sqlite", rater)]:
        (answers.folder / name).rename(answers.folder / "gone")
        found = client.get(f"/rate/{answers.study.token}/{address}")
        assert found.status_code == 503 and "try again" in found.text and str(tmp_path) not in found.text
        (answers.folder / "gone").rename(answers.folder / name)
    assert client.get(f"/rate/{answers.study.token}/{rater}").status_code == 200


def test_what_is_asked_is_a_text_and_no_page(tmp_path: Path) -> None:
    bad = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'
    answers, app = served(tmp_path, question=bad, low=bad, high=bad)
    client = browser(app)
    first = begun(client, answers.study)
    for page in (client.get(f"/rate/{answers.study.token}"), first):
        tags = Page(page)
        assert not tags.all("script") and all("onerror" not in own for _, own in tags.tags)
        assert "&lt;script&gt;alert(1)" in page.text and "{{ 7 * 7 }}" in page.text
    assert Page(first).all("button")[0]["aria-label"] == f"1: {bad}"


def test_pages_are_light_and_can_be_used_without_a_mouse(tmp_path: Path) -> None:
    answers, app = served(tmp_path)
    client = browser(app)
    first = begun(client, answers.study)
    for page in (client.get(f"/rate/{answers.study.token}"), first, client.get("/rate/x")):
        tags, policy = Page(page), page.headers["content-security-policy"]
        assert tags.all("html") == [{"lang": "en"}] and not tags.all("script") and len(page.content) < 6000
        assert {"name": "robots", "content": "noindex"} in tags.all("meta") and "script-src 'none'" in policy
        assert "://" not in page.text, "nothing from elsewhere"
        assert page.headers["referrer-policy"] == "no-referrer" and page.headers["cache-control"] == "no-store"
    tags = Page(first)
    assert [(b["value"], b["accesskey"]) for b in tags.all("button")] == [(f"{n}", f"{n}") for n in range(1, 6)]
    assert tags.all("label")[0]["for"] == tags.all("progress")[0]["id"] and tags.all("legend")
    assert tags.all("link")[-1]["href"] == f"{answers.raters()[0]}/2.png" and tags.all("img")[0]["class"] == "small"


def test_below_another_path(tmp_path: Path) -> None:
    """Behind a proxy that adds a path in front, every address still leads on."""
    answers, app = served(tmp_path, pictures=1, each=2)
    outer = FastAPI()
    outer.mount("/some/where", app)
    client = browser(outer)
    page = client.post(f"/some/where/rate/{answers.study.token}")
    while "Thank you" not in page.text:
        assert client.get(page.url.join(str(Page(page).all("img")[0]["src"]))).status_code == 200
        page = chosen(client, page, 2)
    assert len(answers.rows()) == len(order(answers.study, answers.raters()[0]))
