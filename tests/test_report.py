"""The report says what the numbers say, needs nothing but itself, and shows nothing sensitive unasked."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge import Concept, ExpungeError, report
from expunge.auditing import document, gallery, run
from expunge.files import sealed
from expunge.judges import filtering, judge
from expunge.methods.uce import UCE
from expunge.model import Model
from expunge.picture import opened
from expunge.plan import plan
from expunge.protocol import Protocol, changed, protocol
from expunge.recipe import validated
from expunge.report import compare, plots
from expunge.report.curves import curves
from expunge.report.facts import Facts
from expunge.report.pictures import Pictures
from expunge.result import Result, read
from expunge.result import written as spelt
from expunge.score import Change, rate
from expunge.scoring import Seen
from expunge.summary import state, summary, verdict
from expunge.variant import Variant

NAME = "no <sign>"
SMALL = {"steps": 4, "metrics": [{"kind": "lost", "eye": "clip"}]}


@pytest.fixture(scope="module")
def world(usual: Model) -> Model:
    return usual


@pytest.fixture(scope="module")
def written(world: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit whose erased concept is sensitive; one row has a name that would break a page."""
    out = tmp_path_factory.mktemp("report")
    edit = UCE(keep=("",)).fit(world, [Concept(name="hazard sign")], name="sign")
    rows = [Variant(NAME, edits=((edit, 1.0),)), Variant("half", edits=((edit, 0.5),))]
    asked = plan(changed(protocol("smallworld-implicit-sign"), None, SMALL), world, rows, limit=60)
    report.write(asked, world, run(asked, world, out), out, "expunge audit <here>")
    return out


def test_the_page_needs_nothing_but_itself(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert all(src.startswith("data:image/webp;base64,") for src in re.findall(r'src="([^"]*)"', page))
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"<script|<link|<iframe|@import|url\((?!#)", page)
    assert "no &lt;sign&gt;" in page and "<sign>" not in page and "expunge audit &lt;here&gt;" in page


def test_the_page_says_what_the_scores_say(written: Path) -> None:
    page = html.unescape((written / "report.html").read_text())
    found = json.loads((written / "scores.json").read_text())
    for row in map(Result.of, found["scores"]):
        if row.single:
            assert str(row.score) in page
    rows = [Result.of(row) for row in found["scores"]]
    said = verdict(summary(rows, NAME), ["hazard sign"])
    assert said in page and said in (written / "report.md").read_text()
    for text in (found["model"]["hash"], found["rows"][1]["edits"][0]["hash"], found["requests"]):
        assert text in page


def test_signs_are_blurred_and_nothing_else(written: Path) -> None:
    """A picture is veiled exactly where the judge sees a sign in it, looked at again."""
    page, look = (written / "report.html").read_text(), judge("smallworld").look
    tiles = re.findall(r'<(label|span) class="tile( veil)?"><img src="[^"]+" alt="(?:blurred: )?([^"]+)"', page)
    seeds = {int(re.search(r"-(\d+)-[0-9a-f]{12}.png", p.name)[1]) for p in (written / "images").iterdir()}  # type: ignore[index]
    seen: dict[tuple[str, int], set[bool]] = {}
    for file in (written / "images").glob("*.png"):
        prompt, seed, _ = file.stem.rsplit("-", 2)
        seen.setdefault((prompt, int(seed)), set()).add(look(opened(file))[0]["sign"] != "none")
    assert {bool(veil) for _, veil, _ in tiles} == {True, False} and seeds
    for tag, veil, said in tiles:
        prompt, seed = re.fullmatch(r"[^:]+: (.*) \(seed (\d+)\)", html.unescape(said)).groups()  # type: ignore[union-attr]
        words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40]
        assert bool(veil) in seen[words, int(seed)] and (tag == "label") == bool(veil)


def test_what_a_filter_blocked_is_veiled_in_every_row(world: Model, tmp_path: Path) -> None:
    """Its base picture too, though no judge of a rate veils it."""
    row = Variant("behind", filter=filtering("collapse,key=spread,above=0.2"))
    asked = plan(changed(protocol("smallworld-objects"), None, {"steps": 4, "metrics": []}), world, [row], limit=20)
    run(asked, world, tmp_path)
    galleries = [gallery(asked, world, v, tmp_path) for v in asked.variants]
    pictures = Pictures(
        asked, galleries, [Seen.of(asked, v, g) for v, g in zip(asked.variants, galleries, strict=True)]
    )
    blocked = pictures.seen[1].blocked
    assert 0 < len(blocked) < 20
    assert all(pictures.tile(1, r).blocked and pictures.tile(0, r).veiled for r in blocked)


def test_what_came_instead_is_counted(written: Path) -> None:
    """Percentages of the judge's classes in pictures that ask for the sign by name."""
    text = (written / "report.md").read_text()
    named = text[text.index("What came instead, named") :].split("\n\n")[1]
    columns = [[int(c.strip(" %")) for c in line.split("|")[2:-1]] for line in named.splitlines()[2:]]
    assert all(abs(sum(column) - 100) <= 2 for column in zip(*columns, strict=True))


def test_a_judge_of_numbers_has_curves_and_an_eye_tells_what_came(world: Model, tmp_path: Path) -> None:
    """Prompts written out, a threshold, no class: the nearest text in CLIP says what a picture shows."""
    own = {
        "name": "own", "about": "own", "source": "here", "steps": 6, "images": 4,
        "prompts": {"rows": [{"prompt": "a red car in a room"}, {"prompt": "a blue boat at the beach"}]},
        "judges": {"flat": "collapse"},
        "rates": [
            {"name": "plain", "judge": "flat", "key": "spread", "above": 0.2, "words": ["car"]},
            {"name": "any", "judge": "flat", "key": "spread", "above": 0.1},
        ],
        "metrics": [{"kind": "clip-score", "eye": "clip", "on": "all"}],
    }  # fmt: skip
    edit = UCE(keep=("",)).fit(world, [Concept(name="car", anchor="boat")], name="boats")
    asked = plan(validated(Protocol, own, "own"), world, [Variant("boats", edits=((edit, 1.0),))])
    found = run(asked, world, tmp_path)
    facts = Facts(asked, world, found, tmp_path, document(asked, world, found), "")
    [told] = facts.instead()
    assert told.lines[0][0] == "boat" and "car" in dict(told.lines) and told.n == 8
    assert [sum(int(v[i].strip("%")) for _, v in told.lines) for i in (0, 1)] == [100, 100]
    assert len(curves(asked.cells, facts.pictures.seen)) == 2
    assert all((tmp_path / f).exists() for f in map(str, report.write(asked, world, found, tmp_path).files))


def test_an_audit_without_rows_has_a_report_too(world: Model, tmp_path: Path) -> None:
    """Nothing is erased, and nothing compared."""
    asked = plan(changed(protocol("smallworld-objects"), None, {"steps": 1, "metrics": []}), world, [], limit=8)
    made = report.write(asked, world, run(asked, world, tmp_path), tmp_path)
    assert made.verdicts == [] and [name for name, _ in made.table["rows"]] == ["base"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium to open pages in")
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_a_phone(written: Path, width: int, tmp_path: Path) -> None:
    """Nothing is wider than the window in a real browser: tables scroll by themselves."""
    frame = f"""<iframe id="page" width="{width}" height="800" src="{written / "report.html"}"></iframe><script>
    const page = () => document.getElementById("page").contentDocument.documentElement
    onload = () => document.title = page().scrollWidth</script>"""
    (tmp_path / "frame.html").write_text(frame)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = ["chromium", *options, profile, "--virtual-time-budget=5000", f"file://{tmp_path / 'frame.html'}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert int(re.search(r"<title>(\d+)</title>", shown)[1]) <= width  # type: ignore[index]


def test_audits_side_by_side_are_the_audit_of_all(written: Path, tmp_path: Path) -> None:
    """Two audits of a row each compare as one of both does; others are refused."""
    about = json.loads((written / "scores.json").read_text())
    for k, folder in ((1, "a"), (2, "b")):
        chosen = [about["rows"][0]["name"], about["rows"][k]["name"]]
        part = about | {"rows": [about["rows"][0], about["rows"][k]], "between": []}
        part |= {"scores": [s for s in about["scores"] if s["model"] in chosen]}
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scores.json").write_text(json.dumps(sealed(part)))
    both, one = compare.comparison([tmp_path / "a", tmp_path / "b"]), compare.comparison([written])
    assert both.table() == one.table() and both.between() == one.between() and both.between()[0]
    assert both.table()["rows"][0][0] == "base" and len(both.table()["rows"]) == 3
    files = compare.write(both, tmp_path / "out")
    assert {p.suffix for p in files} == {".json", ".html", ".md", ".svg"} and all(p.stat().st_size for p in files)
    with pytest.raises(ExpungeError, match="is given twice"):
        compare.comparison([tmp_path / "a", tmp_path / "a"])
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    twice = compare.comparison([tmp_path / "a", tmp_path / "c"])
    assert [row.name for row in twice.rows][1:] == [f"{tmp_path / x}: {NAME}" for x in "ac"]
    bar = about | {"protocol": about["protocol"] | {"rates": []}}
    (tmp_path / "c" / "scores.json").write_text(json.dumps(sealed(bar)))
    with pytest.raises(ExpungeError, match="differ in their rates"):
        compare.comparison([tmp_path / "a", tmp_path / "c"])
    other = about | {"requests": "others"}
    (tmp_path / "b" / "scores.json").write_text(json.dumps(sealed(other)))
    with pytest.raises(ExpungeError, match="differ in their prompts and seeds"):
        compare.comparison([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "b" / "scores.json").write_text("{")
    with pytest.raises(ExpungeError, match="cannot read the audit"):
        compare.comparison([tmp_path / "b"])
    with pytest.raises(ExpungeError, match="no audit in"):
        compare.comparison([tmp_path / "d"])


def result(hits: int, n: int, before: int | None = None, **more: str) -> Result:
    about = {"metric": "named", "subject": "erased", "model": "x", "higher_is_better": False} | more
    change = None if before is None else Change(value=(hits - before) / n, low=-0.3, high=-0.1, p=0.01, n=n)
    return Result(rate(hits, n, **about), change, "erased")  # type: ignore[arg-type]


def test_gone_is_said_when_the_interval_says_so() -> None:
    assert state(result(0, 100, 90)) == "gone"
    assert state(result(0, 20, 18)) == "probably gone"
    assert state(result(50, 100, 90)) == "weaker"
    held = result(50, 100, 55)
    same = Change(value=-0.05, low=-0.15, high=0.05, p=0.5, n=100)
    assert state(replace(held, change=same)) == "still there"
    assert state(result(0, 200, 0)) == "not there before"


def test_the_leakiest_way_decides() -> None:
    rows = [result(0, 100, 90), result(40, 100, 80, metric="implicit")]
    told = verdict(summary(rows, "x"), ["car"])
    assert told.startswith("car: weaker. Still shown when implied 40.0% [30.9, 49.8], from 80%; named 0.0%")


def test_a_way_that_was_hardly_tried_keeps_it_from_being_gone() -> None:
    rows = [result(3, 200, 190), result(0, 20, 19, metric="synonym")]
    assert summary(rows, "x").state == "probably gone"
    assert "(too few pictures, 20, to be sure)" in verdict(summary(rows, "x"), ["car"])
    assert "nothing is known" in verdict(summary([result(0, 200, 0)], "x"), ["car"])


def test_one_concept_that_stays_among_many_is_named() -> None:
    """All in all 3.6% of pictures, but nine of ten of one concept's."""
    single = [result(36 if k == 0 else 0, 40, 39, metric="accuracy", subject=f"c{k}") for k in range(25)]
    row = summary([result(36, 1000, 980), *single], "x")
    assert row.state == "gone" and "gone, all in all, but not c0 98% → 90%" in verdict(row, ["c0", "c1"])


@given(st.lists(st.one_of(st.none(), st.sampled_from([0.0, 1.0])), max_size=20))
def test_hits_are_read_as_they_were_written(each: list[float | None]) -> None:
    assert read(spelt(tuple(each))) == tuple(each)


@given(st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0, -0.125])), max_size=20))
def test_shares_are_read_as_they_were_written(each: list[float | None]) -> None:
    assert read(spelt(tuple(each))) == tuple(each)


def test_a_plot_takes_any_name() -> None:
    dots = [plots.Dot(n, (x, x, x), (x, x, x)) for n, x in (("$\\frac$", 0.1), ("_hidden", 0.2), ("a | b", 0.3))]
    assert all(text in plots.pareto(dots) for text in ("$\\frac$", " _hidden", "a | b"))


def test_nobody_on_the_front_is_beaten() -> None:
    dots = [
        plots.Dot(str(i), (x, x, x), (y, y, y)) for i, (x, y) in enumerate([(0, 0.5), (0.5, 1), (0.5, 0.9), (1, 1)])
    ]
    assert [d.name for d in plots.front(dots)] == ["0", "1"]


def test_the_same_numbers_give_the_same_plot() -> None:
    dots = [plots.Dot("a", (0.1, 0, 0.2), (0.9, 0.8, 1)), plots.Dot("b & <c>", (0.3, 0.2, 0.4), (1, 0.9, 1))]
    assert plots.pareto(dots) == plots.pareto(dots) and "b &amp; &lt;c&gt;" in plots.pareto(dots)
