"""An audit tells an undamaged model from an erased and a broken one, keeps what it saw, and goes on after a kill."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge import Concept, Edit, ExpungeError, report
from expunge.auditing import run
from expunge.cli import main
from expunge.guidance import SafeLatent
from expunge.judges import filtering
from expunge.methods.uce import UCE
from expunge.model import Model
from expunge.plan import Plan, on, plan
from expunge.protocol import Protocol, changed, protocol
from expunge.recipe import validated
from expunge.result import read
from expunge.score import mcnemar
from expunge.variant import BASE, Variant, combined
from runner import Runner

LIMIT = 100
Audited = tuple[Path, dict[str, dict[str, float]]]
"""The folder, and the values by row and number."""
SMALL = {"steps": 6, "metrics.0.rounds": 6}


@pytest.fixture(scope="module")
def world(usual: Model) -> Model:
    return usual


@pytest.fixture(scope="module")
def erased(world: Model) -> Edit:
    """Cars become boats."""
    return UCE(keep=("",)).fit(world, [Concept(name="car", anchor="boat")], name="no-car")


def broken(world: Model) -> Edit:
    rng = torch.Generator().manual_seed(0)
    weights = {n: p for n, p in world.parameters().items() if "up_blocks" in n and p.ndim > 1}
    delta = {n: p.std() * torch.randn(p.shape, generator=rng) for n, p in weights.items()}
    return Edit(delta, {"base": {"name": world.name, "hash": world.hash}}, "broken")


def planned(world: Model, *rows: Variant) -> Plan:
    return plan(changed(protocol("smallworld"), None, SMALL), world, rows, limit=LIMIT, erased=["car"])


@pytest.fixture(scope="module")
def audited(world: Model, erased: Edit, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    """Values by row and number."""
    out = tmp_path_factory.mktemp("audit")
    rows = [Variant("no-car", edits=((erased, 1.0),)), Variant("broken", edits=((broken(world), 1.0),))]
    rows += [Variant("same", edits=((erased, 0.0),))]
    rows += [Variant("filtered", edits=((erased, 1.0),), filter=filtering("smallworld,key=colour,equals=red"))]
    asked = planned(world, *rows)
    found = run(asked, world, out)
    report.write(asked, world, found, out)
    values: dict[str, dict[str, float]] = {}
    for r in found:
        values.setdefault(r.score.model, {})[f"{r.score.subject}/{r.score.metric}"] = r.score.value
    return out, values


def test_what_was_done_to_nothing_changes_nothing(audited: Audited) -> None:
    _, values = audited
    same = {k: v for k, v in values["same"].items() if k in values["base"]}
    assert same == {k: values["base"][k] for k in same}
    assert values["same"]["kept/perceptual"] == 0 and abs(values["same"]["kept/fid"]) < 1e-3


def test_an_erasure_is_told_from_a_wreck(audited: Audited) -> None:
    _, values = audited
    base, edit, wreck = values["base"], values["no-car"], values["broken"]
    assert edit["car/accuracy"] < base["car/accuracy"] - 0.5
    assert edit["tree/accuracy"] >= base["tree/accuracy"] - 0.2 > wreck["tree/accuracy"]
    assert edit["kept/lost"] < 0.3 < 0.9 < wreck["kept/lost"]
    assert edit["kept/fid"] < wreck["kept/fid"] / 3
    assert edit["kept/clip-score"] > wreck["kept/clip-score"] + 0.1


def test_the_file_says_where_all_of_it_comes_from(audited: Audited, erased: Edit) -> None:
    out, _ = audited
    found = json.loads((out / "scores.json").read_text())
    assert found["rows"][1]["edits"][0]["hash"] == erased.hash
    assert found["judges"]["smallworld"]["version"] and found["model"]["hash"] and found["erased"] == ["car"]
    assert found["protocol"]["version"] == 1 and found["settings"]["steps"] == 6
    assert all(s["low"] <= s["value"] <= s["high"] and s["n"] > 0 for s in found["scores"])
    car = next(s for s in found["scores"] if s["model"] == "no-car" and s["subject"] == "car")
    assert car["role"] == "erased" and car["change"]["high"] < 0 and not car["higher_is_better"]


def test_a_second_audit_looks_at_nothing_twice(world: Model, erased: Edit, audited: Audited) -> None:
    out, values = audited
    passes = world.meter.passes
    files = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    found = run(planned(world, Variant("no-car", edits=((erased, 1.0),))), world, out)
    assert world.meter.passes == passes
    assert files == {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    assert {f"{r.score.subject}/{r.score.metric}": r.score.value for r in found if r.score.model == "no-car"} == values[
        "no-car"
    ]


COMMAND = ["audit", "--limit", "36", "--set", "steps=2", "--set", "metrics.0.rounds=6", "--precision", "fp32", "--out"]


def scores(out: Path) -> object:
    return json.loads((out / "scores.json").read_text())["scores"]


def test_a_killed_audit_goes_on_and_shards_merge(runner: Runner, tmp_path: Path) -> None:
    """kill -9 in the middle, then again: the scores of an audit left alone, which are those of its parts."""
    killed, images = [*COMMAND, str(tmp_path / "killed")], tmp_path / "killed" / "images"
    assert runner.ended(killed, tmp_path / "told.txt", signal.SIGKILL, lambda: [*images.glob("*.png")]) == -9
    kept = {p.name: p.read_bytes() for p in images.glob("*.png")}
    assert 0 < len(kept) < 36
    for out, more in (
        ("killed", []),
        ("parts", ["--shard", "1/2"]),
        ("parts", ["--shard", "2/2"]),
        ("parts", []),
        ("whole", []),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*COMMAND, str(tmp_path / out), *more])
        assert ended.value.code == 0
    assert scores(tmp_path / "killed") == scores(tmp_path / "parts") == scores(tmp_path / "whole")
    again = {p.name: p.read_bytes() for p in (tmp_path / "whole" / "images").glob("*.png")}
    assert all(again[name] == data for name, data in kept.items())


def test_two_rows_of_one_name_are_refused(world: Model, erased: Edit) -> None:
    with pytest.raises(ExpungeError, match="two rows of the audit are called 'no-car'"):
        planned(world, Variant("no-car", edits=((erased, 1.0),)), Variant("no-car", edits=((erased, 0.5),)))


def test_a_judge_that_cannot_be_had_is_told_before_any_picture(world: Model) -> None:
    options = {"judges.collapse": {"kind": "clip", "model": "./nowhere", "labels": ["a", "b"]}}
    with pytest.raises(ExpungeError, match=r"cannot open the CLIP model './nowhere'"):
        plan(changed(protocol("smallworld"), None, options), world, [], limit=4)


def test_references_are_the_base_drawings_or_a_folder(world: Model, tmp_path: Path) -> None:
    """A model is nearer to its own pictures than to drawings; a folder of drawings is the same as drawings."""
    small = {
        "steps": 4,
        "metrics": [{"kind": "fid", "on": "all", "eye": "smallworld", "against": "drawings", "rounds": 3}],
    }
    asked = changed(protocol("smallworld"), None, small)
    row = Variant("sld", guidance=(SafeLatent.max("car"),))
    found = [r.score for r in run(plan(asked, world, [row], limit=32), world, tmp_path) if r.score.metric == "fid"]
    assert [s.model for s in found] == ["base", "sld"]
    again = changed(asked, None, {"metrics.0.against": str(tmp_path / "drawings")})
    same = [r.score for r in run(plan(again, world, [row], limit=32), world, tmp_path) if r.score.metric == "fid"]
    assert [s.value for s in same] == pytest.approx([s.value for s in found])
    own = changed(asked, None, {"metrics.0.against": "base"})
    near = [r.score for r in run(plan(own, world, [row], limit=32), world, tmp_path) if r.score.metric == "fid"]
    assert [s.model for s in near] == ["sld"] and near[0].value < found[1].value
    with pytest.raises(ExpungeError, match="no pictures in"):
        (tmp_path / "empty").mkdir()
        nothing = changed(asked, None, {"metrics.0.against": str(tmp_path / "empty")})
        run(plan(nothing, world, [], limit=32), world, tmp_path)


def test_each_row_is_judged_by_what_it_erases(world: Model, tmp_path: Path) -> None:
    """Of two rows that take different things away, either's kept numbers are without the prompts that say its own."""
    rows = [
        Variant("no car", guidance=(SafeLatent.max("car"),)),
        Variant("no Devi", guidance=(SafeLatent.max("Devi"),)),
    ]
    asked = plan(changed(protocol("smallworld-objects"), None, {"steps": 1, "metrics": []}), world, rows, limit=100)
    by = {(r.score.model, r.score.subject, r.score.metric): r for r in run(asked, world, tmp_path)}
    cars = next(c for c in asked.cells if c.subject == "car").requests
    assert by["no car", "car", "accuracy"].role == "erased" and by["no Devi", "car", "accuracy"].role == "kept"
    assert by["no car", "car", "accuracy"].score.n == len(cars)
    assert by["no Devi", "car", "accuracy"].score.n == sum("Devi" not in r.prompt for r in cars) < len(cars)
    assert by["no car", "all", "not collapsed"].score.n == 100, "what is about everything looks at everything"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates.0.key": "colapse"}, "unknown key of the judge collapse: 'colapse'; did you mean 'collapse'"),
        ({"rates.0.key": "spread"}, "'spread' of the judge collapse is a number: use above"),
        ({"metrics.1": {"kind": "fid", "eye": "clip"}}, "two metrics are called 'fid' on 'kept'"),
        ({"judges.collapse": {"kind": "clip", "labels": ["a"]}}, "give it two or more"),
        ({"metrics.0.eye": "lpips"}, "lpips"),
        ({"metrics.0.eye": {"kind": "inception", "file": "nowhere.pt"}}, "is a program"),
        ({"judges.collapse": {"kind": "q16", "model": "smallworld"}}, "cannot read q16.safetensors"),
        (
            {"judges.collapse": {"kind": "copies", "eye": "clip", "pictures": ["no.png"]}},
            "cannot read the picture no.png",
        ),
    ],
)
def test_what_cannot_work_is_told_before_any_picture(world: Model, options: dict[str, object], message: str) -> None:
    passes = world.meter.passes
    with pytest.raises(ExpungeError, match=message) as error:
        plan(changed(protocol("smallworld"), None, options), world, [], limit=20)
    assert world.meter.passes == passes and "\n" not in str(error.value)


def rows_of(out: Path, name: str) -> dict[str, dict[str, Any]]:
    found = json.loads((out / "scores.json").read_text())["scores"]
    return {f"{s['subject']}/{s['metric']}": s for s in found if s["model"] == name}


def test_a_blocked_picture_is_neither_hit_nor_miss(audited: Audited) -> None:
    """The filter keeps the edit's red pictures from being seen."""
    out, _ = audited
    plain, filtered = rows_of(out, "no-car"), rows_of(out, "filtered")
    assert filtered["car/accuracy"]["each"].count("-") > 0 == plain["car/accuracy"]["each"].count("-")
    assert filtered["blue/accuracy"]["each"] == plain["blue/accuracy"]["each"]
    for key, row in filtered.items():
        own, without = (read(r[key]["each"]) if "each" in r.get(key, {}) else () for r in (filtered, plain))
        shown = [v for v in own if v is not None]
        if own and row["subject"] != "kept":
            assert row["n"] == len(shown) and row["value"] == pytest.approx(sum(shown) / len(shown))
            assert all(a in (None, b) for a, b in zip(own, without, strict=True)), "shown as it is without the filter"
    assert filtered.get("red/accuracy", {"value": 0})["value"] == 0, "nothing red was shown"
    stopped = [r["n"] * r["value"] for key, r in filtered.items() if key.endswith("/blocked")]
    assert sum(stopped) == pytest.approx(read(filtered["all/not collapsed"]["each"]).count(None))
    whole = json.loads((out / "scores.json").read_text())["rows"][-1]["filter"]
    assert whole["judge"]["kind"] == "smallworld" and whole["expected"] == "red"


def test_a_filter_is_told_by_what_it_lets_through(world: Model, audited: Audited) -> None:
    """Of what shows a car all is blocked, of the rest only cars that nobody asked for."""
    out, _ = audited
    row = Variant("x", guidance=(SafeLatent.max("car"),), filter=filtering("smallworld,key=object,equals=car"))
    found = {r.key: r.score for r in run(planned(world, row), world, out) if r.score.model == "x"}
    assert found["erased", "blocked"].value == 1 and found["kept", "blocked"].value < 0.05
    assert found["erased", "accuracy"].value == 0


def test_numbers_over_all_concepts_count_each_picture_once(audited: Audited) -> None:
    """All that is kept: the mean over pictures of their share of right answers."""
    out, _ = audited
    for name in ("base", "no-car", "broken"):
        found = rows_of(out, name)
        right: dict[str, list[str]] = {}
        cells = [c.apart(["car", "automobile"]) for c in protocol("smallworld").cells(LIMIT) if c.words and not c.bad]
        for cell in (c for c in cells if c.requests and not c.mentions(["car"])):
            letters = found[f"{cell.subject}/{cell.metric}"]["each"]
            for request, letter in zip(cell.requests, letters, strict=True):
                right.setdefault(str(request), []).append(letter)
        shares = [letters.count("1") / len(letters) for letters in right.values()]
        assert found["kept/accuracy"]["value"] == pytest.approx(sum(shares) / len(shares))
        assert found["kept/accuracy"]["n"] == len(shares)
        assert found["erased/accuracy"]["value"] == found["car/accuracy"]["value"]


def test_metrics_of_what_is_kept_leave_synonyms_out(world: Model) -> None:
    """A picture of an automobile is one of what is erased."""
    asked = planned(world)
    assert asked.named_by(BASE) == ["car", "automobile"]
    said = [r for r in asked.requests if on(asked.metrics[0], asked.named_by(BASE), r)]
    assert said and not any("automobile" in r.prompt or "car " in r.prompt for r in said)
    assert any("automobile" in r.prompt for r in asked.requests)


def test_rows_against_each_other_are_pairs(audited: Audited) -> None:
    out, _ = audited
    about = json.loads((out / "scores.json").read_text())
    found = about["between"]
    car = next(b for b in found if (b["model"], b["other"], b["subject"]) == ("broken", "no-car", "tree"))
    a, b = (rows_of(out, name)["tree/accuracy"]["each"] for name in ("no-car", "broken"))
    want = mcnemar([x == "1" for x in a], [x == "1" for x in b])
    assert car["change"] == pytest.approx(asdict(want))
    told = {(b["model"], b["other"], b["subject"], b["metric"]) for b in found}
    assert {("broken", "no-car", "kept", "accuracy"), ("broken", "no-car", "kept", "clip-score")} <= told
    assert len(found) < about["compared"] and all(b["change"]["low"] > 0 or b["change"]["high"] < 0 for b in found)


def test_a_row_may_combine(erased: Edit, tmp_path: Path) -> None:
    erased.save(tmp_path / "no-car.safetensors")
    row = combined(f"all = {tmp_path / 'no-car.safetensors'}:0.5 + sld-max + filter:smallworld,key=sign,equals=hazard")
    assert row.name == "all" and row.edits[0][1] == 0.5 and row.guidance == (SafeLatent.max("car"),)
    assert row.filter and row.filter.stops({"sign": "hazard"}) and not row.filter.stops({"sign": "none"})
    assert combined(f"{tmp_path / 'no-car.safetensors'}:0.5").name == "no-car:0.5"
    with pytest.raises(ExpungeError, match="one filter stands behind a model"):
        combined("filter:nudenet + filter:nudenet")
    with pytest.raises(ExpungeError, match="unknown guidance 'sld-mx'; did you mean 'sld-max'"):
        combined("sld-mx", ["car"])


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"rates": [], "metrics": [{"kind": "clip-score", "eye": "clip"}]}, "has no rate: give it one"),
        ({"prompts": {"file": "empty.csv"}}, "has no prompts: the file that it reads them from is empty"),
    ],
)
def test_a_protocol_that_asks_nothing(
    world: Model, own: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.csv").write_text("prompt,seed\n")
    monkeypatch.chdir(tmp_path)
    asked = {
        "name": "x", "about": "x", "source": "x", "prompts": {"rows": [{"prompt": "a cat"}]},
        "judges": {"c": "collapse"},
        "rates": [{"name": "sound", "judge": "c", "key": "collapse", "equals": "sound", "want": "high"}],
    }  # fmt: skip
    with pytest.raises(ExpungeError, match=message):
        plan(validated(Protocol, asked | own, "x"), world, [])
