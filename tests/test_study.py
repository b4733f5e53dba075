"""A study shows every row alike and tells raters nothing; answers are kept whole; intervals cover what they should."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from expunge import ExpungeError
from expunge.auditing import gallery, run
from expunge.cli import main
from expunge.files import sealed
from expunge.judges import filtering
from expunge.model import Model
from expunge.plan import plan
from expunge.protocol import changed, protocol
from expunge.report.opinions import opinions
from expunge.scoring import blocked
from expunge.study import database
from expunge.study.design import Item, Study, load, new
from expunge.study.export import export
from expunge.study.order import order
from expunge.study.results import alpha, intervals, means, results
from expunge.study.store import Answer, Answers, Unknown
from expunge.variant import Variant

PROMPTS = ("a red car", "a car at the beach", "a cat", "a tree")


def audit_at(
    folder: Path, rows: Sequence[str] = ("base", "no-car"), *, seeds: int = 3, model: str = "m", without: Any = ()
) -> Path:
    """An audit's folder as far as a study reads it; every picture is another. `without` are (row, seed)s blocked."""
    shown = []
    for i, row in enumerate(rows):
        for j, prompt in enumerate(PROMPTS):
            for seed in range(seeds):
                file = f"images/{prompt.replace(' ', '-')}-{seed}-{model}{row}.png"
                (folder / "images").mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 32), (40 * i, 50 * j, 60 * seed)).save(folder / file)
                kept = None if (row, seed) in without else file
                shown.append({"row": row, "prompt": prompt, "seed": seed, "file": kept})
    (folder / "pictures.json").write_text(json.dumps({"rows": shown, "erased": ["car"]}))
    return folder


def study_at(folder: Path, **options: Any) -> Answers:
    new([audit_at(folder / "audit")], folder / "study", **options)
    return Answers(folder / "study")


def rate(answers: Answers, rating: Callable[[Item], int], *, most: int = 1000) -> str:
    """A rater who answers so, and what checks ask unless told otherwise."""
    rater = answers.begin()
    for i in order(answers.study, rater)[:most]:
        answers.answer(rater, i, rating(answers.study.by_id[i]))
    return rater


def obeying(rating: Mapping[str, int]) -> Callable[[Item], int]:
    return lambda item: rating[item.row] if item.want is None else item.want


def test_an_audit_lists_its_pictures_and_a_study_takes_them(world: Model, tmp_path: Path) -> None:
    row = Variant("filtered", filter=filtering("smallworld,key=colour,equals=blue"))
    asked = plan(changed(protocol("smallworld-objects"), None, {"steps": 2}), world, [row], limit=8, erased=["car"])
    run(asked, world, tmp_path)
    found = json.loads((tmp_path / "pictures.json").read_text())
    hidden = blocked(row, gallery(asked, world, row, tmp_path))
    assert found["erased"] == ["car"] and 0 < len(hidden) < 8
    assert [r["file"] is None for r in found["rows"]] == [False] * 8 + [r in hidden for r in asked.requests]
    assert all((tmp_path / r["file"]).exists() for r in found["rows"] if r["file"])
    before = (tmp_path / "pictures.json").read_bytes()
    run(asked, world, tmp_path)
    assert (tmp_path / "pictures.json").read_bytes() == before
    made = new([tmp_path], tmp_path / "study", about="all")
    assert made.rows == ("base", "filtered") and len(made.rated) == 2 * (8 - len(hidden))


def test_every_row_shows_the_same_requests_under_names_that_tell_nothing(tmp_path: Path) -> None:
    folder = audit_at(tmp_path / "audit", without=[("no-car", 1)])
    made = new([folder], tmp_path / "study")
    assert made.question == "How much of “car” does this picture show?"
    want = {(prompt, seed) for prompt in PROMPTS[:2] for seed in (0, 2)}
    for row in made.rows:
        assert {item.request for item in made.rated if item.row == row} == want, "what a row blocks, none shows"
    for item in made.rated:
        prompt, seed = item.request
        source = folder / f"images/{prompt.replace(' ', '-')}-{seed}-m{item.row}.png"
        assert (tmp_path / "study" / "pictures" / item.file).read_bytes() == source.read_bytes()
    assert {p.name for p in (tmp_path / "study" / "pictures").iterdir()} == {item.file for item in made.items}
    assert load(tmp_path / "study") == made


def test_neither_numbers_nor_dates_tell_the_row(tmp_path: Path) -> None:
    """Numbers of the base's pictures are a sample of all numbers: in order of writing as well."""
    ranks = []
    for seed in range(6):
        made = new([audit_at(tmp_path / f"{seed}")], tmp_path / f"study{seed}", about="all", seed=seed)
        own = tmp_path / f"study{seed}" / "pictures"
        dates = [(own / item.file).stat().st_mtime_ns for item in made.items]
        assert [item.id for item in made.items] == [*range(len(made.items))] and dates == sorted(dates)
        ranks += [item.id / len(made.items) for item in made.rated if item.row == "base"]
    assert abs(np.mean(ranks) - 0.5) < 0.15 and len({*ranks}) > 15


def test_prompts_are_spread(tmp_path: Path) -> None:
    folder = audit_at(tmp_path / "audit")
    for n in (2, 3, 4):
        made = new([folder], tmp_path / f"study{n}", pictures=n, about="all", seed=n)
        count = Counter(item.prompt for item in made.rated if item.row == "base")
        assert sum(count.values()) == n and max(count.values()) == 1
    others = new([folder], tmp_path / "others", about="others")
    assert {item.prompt for item in others.rated} == {*PROMPTS[2:]}


def test_the_same_seed_asks_the_same(tmp_path: Path) -> None:
    folder = audit_at(tmp_path / "audit")
    a, b, c = (new([folder], tmp_path / name, pictures=3, seed=s) for name, s in [("a", 1), ("b", 1), ("c", 2)])
    asked = [[(i.id, i.row, i.request, i.want) for i in made.items] for made in (a, b, c)]
    assert asked[0] == asked[1] != asked[2]
    assert a.token != b.token and not {i.file for i in a.items} & {i.file for i in b.items}, "these nobody can guess"


def test_audits_side_by_side(tmp_path: Path) -> None:
    a, b = audit_at(tmp_path / "a", ("base", "esd", "uce")), audit_at(tmp_path / "b", ("base", "esd"))
    made = new([a, b], tmp_path / "study")
    assert made.rows == ("base", "a: esd", "uce", "b: esd") and len(made.rated) == 4 * 6
    other = audit_at(tmp_path / "other" / "b", ("base", "esd"))
    assert new([b, other], tmp_path / "two").rows == ("base", f"{b}: esd", f"{other}: esd")
    with pytest.raises(ExpungeError, match="of different base models or steps: audit both alike"):
        new([a, audit_at(tmp_path / "c", model="n")], tmp_path / "none")


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"about": "erasd"}, "did you mean 'erased'"),
    ({"pictures": 0}, "pictures >= 1"),
    ({"each": 0}, "each >= 1"),
    ({"question": " "}, "one of them is empty"),
    ({"low": ""}, "one of them is empty"),
]


@pytest.mark.parametrize(("options", "message"), ERRORS)
def test_what_cannot_be_asked(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExpungeError, match=message):
        new([audit_at(tmp_path / "audit")], tmp_path / "study", **options)
    assert not (tmp_path / "study").exists()


def test_what_is_no_audit(tmp_path: Path) -> None:
    folder, out = audit_at(tmp_path / "audit"), tmp_path / "study"
    with pytest.raises(ExpungeError, match="given twice"):
        new([folder, folder / "images" / ".."], out)
    with pytest.raises(ExpungeError, match="at least two rows, not base"):
        new([audit_at(tmp_path / "one", ["base"])], out)
    with pytest.raises(ExpungeError, match=r"no picture about 'erased' is there of all rows \(base, no-car\)"):
        new([audit_at(tmp_path / "two", without=[("base", s) for s in range(3)])], out)
    (tmp_path / "old").mkdir()
    with pytest.raises(ExpungeError, match="again, which makes no picture twice"):
        new([tmp_path / "old"], out)
    for text in ("{", '{"rows": 3}', '{"rows": [{"row": 1}], "erased": []}'):
        (tmp_path / "old" / "pictures.json").write_text(text)
        with pytest.raises(ExpungeError):
            new([tmp_path / "old"], out)
    nothing = json.loads((folder / "pictures.json").read_text()) | {"erased": []}
    (folder / "pictures.json").write_text(json.dumps(nothing))
    with pytest.raises(ExpungeError, match="give --concept or --question"):
        new([folder], out)
    assert not out.exists()


def test_a_half_made_study_is_none(tmp_path: Path) -> None:
    """One that stopped at a damaged picture; mended, it is made, and no second one over it."""
    folder, out = audit_at(tmp_path / "audit"), tmp_path / "study"
    picture = folder / "images" / "a-red-car-1-mno-car.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:40])
    with pytest.raises(ExpungeError, match="cannot read the picture"):
        new([folder], out)
    with pytest.raises(ExpungeError, match="no study in"):
        load(out)
    picture.write_bytes(whole)
    made = new([folder], out)
    with pytest.raises(ExpungeError, match=r"there is a study in .* already"):
        new([folder], out)
    rate(Answers(out), obeying({"base": 5, "no-car": 1}))
    (out / "study.json").rename(out / "gone.json")
    with pytest.raises(ExpungeError, match="the answers to another study"):
        new([folder], out)
    (out / "gone.json").rename(out / "study.json")
    assert load(out) == made


def test_a_damaged_study_is_told(tmp_path: Path) -> None:
    file = study_at(tmp_path).folder / "study.json"
    text = file.read_text()
    outside = json.loads(text.replace(".png", "/../../x.png"))
    for bad in (text[:50], "[]", text.replace('"seed": 0', '"seed": 1'), json.dumps(sealed(outside))):
        assert bad != text
        file.write_text(bad)
        with pytest.raises(ExpungeError, match=r"damaged|cannot read|is not JSON"):
            load(file.parent)


def made(rows: int, requests: int, checks: int, each: int) -> Study:
    """A study without pictures."""
    asked = [(f"row {k}", f"prompt {q}", None) for k in range(rows) for q in range(requests)]
    asked += [("", "", 1 + i % 5) for i in range(checks)]
    items = [Item(id=i, file=f"{i:016x}.png", row=r, prompt=p, want=w) for i, (r, p, w) in enumerate(asked)]
    return Study(
        token="t" * 16, question="?", low="a", high="b", created="", rows=[f"row {k}" for k in range(rows)],
        items=items, each=each, seed=0, width=32,
    )  # fmt: skip


@given(st.integers(2, 6), st.integers(1, 12), st.integers(2, 8), st.integers(1, 70), st.text(max_size=8))
def test_each_rater_sees_as_many_of_each_row(rows: int, requests: int, checks: int, each: int, rater: str) -> None:
    study = made(rows, requests, checks, each)
    seen = [study.by_id[i] for i in order(study, rater)]
    assert order(study, rater) == [item.id for item in seen] and len({item.id for item in seen}) == len(seen)
    rated = [item for item in seen if item.want is None]
    assert len(rated) == min(each, rows * requests)
    count = Counter(item.row for item in rated)
    assert max(count.values()) - min(count[row] for row in study.rows) <= 1
    assert [i for i in seen if i.want is not None] and sum(i.want is not None for i in seen) == checks
    assert seen[0].want is None, "a check is not first"
    if len(rated) >= checks:
        where = [i for i, item in enumerate(seen) if item.want is not None]
        assert all(b - a > 1 for a, b in pairwise(where)), "nor do two follow each other"


def test_raters_see_different_pictures_and_all_are_seen_alike() -> None:
    study = made(3, 10, 2, 2)
    seen = Counter(i for k in range(3000) for i in order(study, f"rater {k}"))
    often = [seen[item.id] for item in study.rated]
    assert min(often) > 3000 * 2 / 30 * 0.75 and max(often) < 3000 * 2 / 30 * 1.25
    first = Counter(study.by_id[order(study, f"rater {k}")[0]].row for k in range(400))
    assert min(first.values()) > 100


@pytest.mark.parametrize(("pictures", "each", "checks"), [(2, 60, 2), (12, 24, 2), (12, 60, 5), (12, 21, 2)])
def test_about_one_check_for_ten(tmp_path: Path, pictures: int, each: int, checks: int) -> None:
    rows = ("base", "a", "b", "c")
    made = new([audit_at(tmp_path / "audit", rows)], tmp_path / "s", pictures=pictures, each=each, about="all")
    assert len(made.checks) == checks and len({item.want for item in made.checks}) == checks
    shown = {item.want: Image.open(tmp_path / "s" / "pictures" / item.file) for item in made.checks}
    assert all(picture.size == (256, 256) for picture in shown.values())
    assert len({picture.tobytes() for picture in shown.values()}) == checks, "each says another number"


def test_an_answer_is_one_that_was_asked_for(tmp_path: Path) -> None:
    answers = study_at(tmp_path, each=2)
    rater = answers.begin()
    own = order(answers.study, rater)
    other = next(item.id for item in answers.study.items if item.id not in own)
    for rating in (0, 6, -1):
        with pytest.raises(ExpungeError, match=f"a rating is 1, 2, 3, 4 or 5, not {rating}"):
            answers.answer(rater, own[0], rating)
    for item in (other, -1, 10**9):
        with pytest.raises(Unknown, match=f"no picture {item} for this rater"):
            answers.answer(rater, item, 3)
    with pytest.raises(Unknown, match="no such rater"):
        answers.answer("nobody", own[0], 3)
    with pytest.raises(Unknown, match="no such rater"):
        answers.answered("nobody")
    assert answers.answered(rater) == {} and answers.raters() == [rater]
    for rating in (2, 5):
        answers.answer(rater, own[0], rating, shown=1)
    assert answers.answered(rater) == {own[0]: 5} and len(answers.rows()) == 1, "the last one counts"
    with pytest.raises(ExpungeError, match="CHECK constraint"), database.writing(answers.folder) as connection:
        connection.execute("UPDATE answers SET rating = 9")
    (answers.folder / "answers.sqlite").write_bytes(b"x" * 4096)
    with pytest.raises(ExpungeError, match="cannot use"):
        answers.rows()


KILLED = """
import sys, time
from itertools import pairwise
from pathlib import Path
from expunge.study import database
from expunge.study.order import order
from expunge.study.store import Answers
answers = Answers(Path(sys.argv[1]))
rater = answers.begin()
first, second, *_ = order(answers.study, rater)
answers.answer(rater, first, 4)
with database.writing(answers.folder) as connection:
    connection.execute("INSERT INTO answers VALUES (?, ?, 2, 0, 0)", (rater, second))
    print(rater, first, flush=True)
    time.sleep(60)
"""


def test_a_killed_answer_is_whole_or_not_there(tmp_path: Path) -> None:
    """Kill -9 after one answer and in the middle of the next; others go on at once."""
    answers = study_at(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", KILLED, answers.folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    rater, first = process.stdout.readline().split()
    process.kill()
    process.communicate()
    assert answers.answered(rater) == {int(first): 4}
    answers.answer(rater, int(first), 1)
    assert answers.answered(rater) == {int(first): 1}
    with sqlite3.connect(answers.folder / "answers.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


KRIPPENDORFF = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
"""Four observers of twelve units: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", C."""


def test_alpha_is_krippendorffs() -> None:
    lines = [line.split() for line in KRIPPENDORFF.strip().splitlines()]
    given = [Answer(f"{c}", u, int(x), None, 0) for c, line in enumerate(lines) for u, x in enumerate(line) if x != "."]
    found = alpha(given)
    assert found is not None and round(found, 3) == 0.849


@pytest.mark.parametrize("ratings", [[], [("a", 0, 1), ("b", 1, 5)], [("a", 0, 3), ("b", 0, 3), ("b", 1, 4)]])
def test_alpha_of_nothing_to_compare(ratings: list[tuple[str, int, int]]) -> None:
    assert alpha([Answer(*about, None, 0) for about in ratings]) is None


def judged(rng: np.random.Generator, raters: int, requests: int) -> np.ndarray:
    """Ratings (2, raters, requests): raters are strict or not, requests leak or not; the second row is 0.6 lower."""
    strict, leaks = rng.normal(0, 0.6, (1, raters, 1)), rng.normal(0, 0.8, (1, 1, requests))
    level = np.array([3.3, 2.7])[:, None, None] + strict + leaks + rng.normal(0, 0.5, (2, raters, requests))
    return np.clip(level.round(), 1, 5)


def test_intervals_cover_the_mean_of_all_raters_and_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 studies of 12 raters and 15 requests, each rater shown two thirds of them, at least nine in ten do."""
    monkeypatch.setattr("expunge.study.results.ROUNDS", 400)
    rng = np.random.default_rng(0)
    truth = judged(rng, 3000, 3000).mean((1, 2))
    held, real = np.zeros(2), 0
    for _ in range(200):
        sums, times = judged(rng, 12, 15), np.repeat(rng.random((1, 12, 15)) < 2 / 3, 2, axis=0)
        value, low, high = intervals(means(sums * times, times.astype(float)))
        assert ((low <= value) & (value <= high)).all()
        held += (low <= truth) & (truth <= high)
        real += bool(value[0] > value[1])
    assert (held >= 180).all() and (held <= 199).all() and real == 200


def test_results_count_those_who_looked(tmp_path: Path) -> None:
    answers = study_at(tmp_path)
    sure = {"base": 5, "no-car": 2}
    for _ in range(3):
        rate(answers, obeying(sure))
    rate(answers, obeying({"base": 4, "no-car": 2}), most=1)
    rate(answers, lambda item: 3 if item.want != 3 else 4)
    answers.begin()
    found = results(answers.study, answers)
    assert (found.begun, found.finished, found.excluded) == (6, 4, 1)
    base, edit = found.rows
    assert base.answers + edit.answers == 3 * 12 + 1 and {base.raters, edit.raters} in ({3, 4}, {4, 3})
    assert base.value == pytest.approx(5, abs=0.06) and edit.value == 2 == edit.low == edit.high
    assert base.change is None and edit.change is not None and edit.change.real
    assert edit.change.value == pytest.approx(2 - base.value)
    assert found.alpha is not None and found.alpha > 0.95
    assert json.loads(json.dumps(found.row()))["rows"][1]["change"]["value"] == edit.change.value


def test_what_cannot_be_told_yet(tmp_path: Path) -> None:
    answers = study_at(tmp_path)
    found = results(answers.study, answers)
    assert found.alpha is None and found.begun == 0
    assert [(r.value, r.change, str(r), r.against()) for r in found.rows] == [(None, None, "", "")] * 2
    assert opinions(found).startswith("<svg")
    rate(answers, obeying({"base": 5, "no-car": 5}))
    found = results(answers.study, answers)
    assert found.alpha is None and [str(r) for r in found.rows] == ["5.00 [5.00, 5.00]"] * 2


def test_the_csv_has_every_answer_and_nobodys_name(tmp_path: Path) -> None:
    answers = study_at(tmp_path)
    raters = [rate(answers, obeying({"base": 5, "no-car": 1})), rate(answers, lambda item: 3 if item.want != 3 else 1)]
    text = export(answers)
    rows = [*csv.DictReader(io.StringIO(text))]
    assert len(rows) == 2 * 14 and not any(rater in text for rater in raters)
    assert {(r["rater"], r["passed"]) for r in rows} == {("1", "True"), ("2", "False")}
    for row in rows:
        if row["check"] == "True":
            assert (row["row"], row["prompt"], row["seed"]) == ("", "", "")
        elif row["rater"] == "1":
            assert row["rating"] == {"base": "5", "no-car": "1"}[row["row"]] and row["prompt"] in PROMPTS
    given = answers.rows()[0]
    answers.answer(given.rater, given.item, given.rating, given.answered - 2500)
    seconds = [float(r["seconds"]) for r in csv.DictReader(io.StringIO(export(answers))) if r["seconds"]]
    assert len(seconds) == 1 and 2.5 <= seconds[0] < 60


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    output = capsys.readouterr()
    assert ended.value.code == 0, output.err
    return output.out


def test_the_command_line_makes_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = audit_at(tmp_path / "audit", ("base", "no <car>")), tmp_path / "study"
    text = told(capsys, "study", "new", folder, "--out", out, "--pictures", 3, "--low", "no & nothing")
    assert f"{out}: 3 pictures of each of 2 rows" in text and f"expunge serve --study {out}" in text
    rate(Answers(out), obeying({"base": 5, "no <car>": 1}))
    text = told(capsys, "study", "show", out)
    assert "5.00 [5.00, 5.00]" in text and "1 began, 1 finished, 0 failed a check" in text
    assert "not known yet" in text, "one rater agrees with nobody"
    plot = (out / "results.svg").read_text()
    assert "no &lt;car&gt;" in plot and "no &amp; nothing" in plot and "it, without doubt" in plot
    found = json.loads(told(capsys, "study", "show", out, "--out", tmp_path / "else", "--json"))
    assert found["files"] == [str(tmp_path / "else" / f"results.{kind}") for kind in ("svg", "csv", "json")]
    assert json.loads((tmp_path / "else" / "results.json").read_text())["rows"] == found["rows"]
    again = json.loads(told(capsys, "study", "new", folder, "--out", tmp_path / "b", "--question", "Q?", "--json"))
    assert again["question"] == "Q?" and again["token"] == load(tmp_path / "b").token and again["pictures"] == 6


def test_a_study_needs_no_torch() -> None:
    modules = ", ".join(f"expunge.study.{name}" for name in ("design", "export", "order", "results", "store"))
    check = f"import {modules}, sys; sys.exit(any(m in sys.modules for m in ('torch', 'nltk', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
