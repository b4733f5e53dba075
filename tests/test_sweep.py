"""A sweep is its runs, one by one; what they share is made once, and changes no bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge import Edit, ExpungeError
from expunge.erasure import build_method, concepts_of, run, snapshot_path
from expunge.memo import Shelf
from expunge.model import Model
from expunge.plan import plan
from expunge.protocol import protocol
from expunge.recipe import Recipe, validated
from expunge.report.sweeps import figures
from expunge.result import Result
from expunge.score import rate
from expunge.summary import training_time
from expunge.sweep import Sweep, edits, expected, names, points, rows, sweep
from expunge.training import Trainer

SHORT = {"steps": 3, "grid": 2, "latents": 2, "batch": 2, "lr": 1e-3}
GIVEN: dict[str, Any] = {
    "concepts": ["car"], "runs": [{"name": "x", "method": "esd", "options": SHORT}], "grid": {"eta": [1, 3]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(world: Model, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known beforehand."""
    monkeypatch.setattr(world, "cache", tmp_path_factory.mktemp("cache"))


def swept(**more: Any) -> Sweep:
    return validated(Sweep, GIVEN | more, "the sweep")


def test_every_combination_runs_once() -> None:
    found = points(swept(grid={"eta": [1, 3], "seed": [0, 1], "concepts": [["car"], ["boat", "cat"]]}))
    assert len(found) == 8 == len({p.file for p in found})
    assert found[-1].name == "x eta=3 seed=1 concepts=boat,cat" and found[-1].seed == 1
    assert [c.name for c in found[-1].concepts] == ["boat", "cat"] and found[-1].method.eta == 3  # type: ignore[attr-defined]


def test_sharing_saves_passes_and_changes_no_bit(world: Model, tmp_path: Path) -> None:
    """The second run asks the frozen model what the first did."""
    alone = edits(swept(share=False), world, tmp_path / "alone")
    shared = edits(swept(), world, tmp_path / "shared")
    assert [m.row.edits[0][0].hash for m in shared] == [m.row.edits[0][0].hash for m in alone]
    costs = [[m.row.edits[0][0].provenance["cost"]["passes"] for m in own] for own in (alone, shared)]
    assert costs[0][0] == costs[0][1] == costs[1][0]
    assert costs[1][1] == 3 * SHORT["steps"] * SHORT["batch"], "the student's own passes alone"
    assert world.memo is None


def test_the_memo_is_bounded_and_only_of_the_model_itself(world: Model, rng: torch.Generator) -> None:
    x, t, c = world.noise(1, rng), torch.tensor(500), world.encode(["a car"])
    cat = world.encode(["a cat"])
    with world.remembering(limit=3 * x.nbytes) as memo, torch.no_grad():
        first = world.predict(x, t, c)
        assert world.predict(x, t, c) is first and memo.saved == 1
        assert not torch.equal(world.predict(x, t, cat), first)
        name, p = next(iter(world.parameters().items()))
        assert world.predict(x, t, c, {name: p + 1}) is not first
        edit = Edit({name: torch.ones_like(p)}, {"base": world.identity(())})
        with edit.on(world):
            assert not torch.equal(world.predict(x, t, c), first)
        for i in range(5):
            world.predict(x, torch.tensor(i), c)
        assert memo.size <= 3 * x.nbytes and len(memo.known) == 3
    with torch.enable_grad():
        assert world.predict(x, t, c) is not first


def test_the_disk_remembers_for_other_processes(world: Model, tmp_path: Path) -> None:
    """Another sweep of another η, with nothing in memory: the student's own passes alone, and the same bits."""
    edits(swept(grid={"eta": [1]}), world, tmp_path / "first")
    [made] = edits(swept(grid={"eta": [3]}), world, tmp_path / "second")
    assert made.row.edits[0][0].provenance["cost"]["passes"] == 3 * SHORT["steps"] * SHORT["batch"]
    [alone] = edits(swept(grid={"eta": [3]}, share=False), world, tmp_path / "alone")
    assert made.row.edits[0][0].hash == alone.row.edits[0][0].hash
    files = [*(world.cache or tmp_path).rglob("predictions/*.safetensors")]
    for file in files:
        file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
    [again] = edits(swept(grid={"eta": [5]}), world, tmp_path / "damaged")
    assert again.row.edits[0][0].provenance["cost"]["remembered"] == 0, "damaged files are none"
    edits(swept(grid={"eta": [7]}, cache=0), world, tmp_path / "none")
    assert sorted(files) == sorted((world.cache or tmp_path).rglob("predictions/*.safetensors"))


def test_the_disk_keeps_what_was_asked_for_last(tmp_path: Path) -> None:
    one = {"e": torch.ones(256)}
    shelf = Shelf(tmp_path, 4000)
    for key in "abc":
        shelf.put(key, one)
    assert shelf.get("a") and shelf.get("x") is None and len([*tmp_path.iterdir()]) == 3
    shelf.put("d", one)
    assert {p.stem for p in tmp_path.iterdir()} == {"a", "c", "d"}
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 0.9 * 4000
    blocked = Shelf(tmp_path / "a.safetensors", 4000)
    blocked.put("e", one)
    assert blocked.get("e") is None, "a folder that cannot be is none"


def test_a_text_is_encoded_once(world: Model) -> None:
    with world.remembering(disk=2**20):
        first, again, other = (world.encode([text]).tensors["text"] for text in ("a dog", "a dog", "a cat"))
    with world.remembering(disk=2**20):
        assert torch.equal(world.encode(["a dog"]).tensors["text"], first)
    assert again is first is not world.encode(["a dog"]).tensors["text"] and not torch.equal(first, other)
    assert torch.equal(world.encode(["a dog"]).tensors["text"], first)
    assert len([*(world.cache or Path()).rglob("predictions/*.safetensors")]) == 2


def test_a_snapshot_is_the_edit_of_a_shorter_run(world: Model, tmp_path: Path) -> None:
    made = edits(swept(snapshots=[2], grid={}), world, tmp_path)
    assert [m.steps for m in made] == [2, 3] and made[0].row.name == "x after 2"
    recipe = Recipe(method="esd", options=SHORT)
    short = run(world, build_method(recipe, {"steps": 2}), concepts_of(["car"]), tmp_path / "short.safetensors")
    assert made[0].row.edits[0][0].hash == short.hash != made[1].row.edits[0][0].hash


def test_what_is_there_is_not_made_again(world: Model, tmp_path: Path) -> None:
    edits(swept(), world, tmp_path)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    edits(swept(), world, tmp_path)
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    edits(swept(runs=[{"name": "x", "method": "esd", "options": SHORT | {"lr": 2e-3}}]), world, tmp_path)
    assert all(p.stat().st_mtime_ns != time for p, time in times.items()), "other options, other edits"


def test_rows_without_training_steer_from_what_is_erased(world: Model, tmp_path: Path) -> None:
    asked = swept(guidance=["SLD = sld-max"], others=["gold"], grid={})
    found = rows(asked, [m.row for m in edits(asked, world, tmp_path)], {"gold": world})
    assert [v.name for v in rows(asked, expected(asked), {"gold": world})] == [v.name for v in found]
    assert [v.name for v in found] == ["SLD", "x", "gold"] and found[0].concepts() == ["car"]


def test_a_figure_has_a_line_for_what_differs_otherwise(world: Model, tmp_path: Path) -> None:
    made = edits(swept(grid={"eta": [1, 3], "seed": [0, 1]}), world, tmp_path)
    about = {"metric": "accuracy", "higher_is_better": False}
    found = [
        Result(rate(k, 10, subject=role, model=m.row.name, **about), None, role)  # type: ignore[arg-type]
        for k, m in enumerate(made)
        for role in ("erased", "kept")
    ]
    drawn = dict(figures(made, found))
    assert list(drawn) == ["over eta", "over seed"]
    assert all(
        f">{k}: {what}<" in drawn["over eta"] for k in ("seed=0", "seed=1") for what in ("still shown", "all else")
    )


def test_each_row_is_judged_by_what_its_run_erases(world: Model, tmp_path: Path) -> None:
    asked = swept(grid={"concepts": [["car"], ["boat"]]})
    made = edits(asked, world, tmp_path)
    found = plan(protocol("smallworld-objects"), world, rows(asked, [m.row for m in made], {}), limit=8)
    assert [found.erased_by(v) for v in found.variants] == [["car", "boat"], ["car"], ["boat"]]


def test_a_snapshot_that_is_asked_for_later_is_made(world: Model, tmp_path: Path) -> None:
    """An unfinished run that is past it starts again; one of other options does not pass for it."""
    late = swept(grid={}, snapshots=[1])
    [p] = points(late)
    out = tmp_path / p.file

    def stop(trainer: Trainer, _: float) -> None:
        if trainer.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        p.method.fit(world, p.concepts, snapshot=snapshot_path(out), on_step=stop)
    other = swept(grid={}, snapshots=[1], runs=[{"name": "x", "method": "esd", "options": SHORT | {"lr": 2e-3}}])
    edits(other, world, tmp_path / "other")
    (tmp_path / "other" / "x.after-1.safetensors").rename(tmp_path / "x.after-1.safetensors")
    made = edits(late, world, tmp_path)
    assert made[0].row.edits[0][0].provenance["options"]["lr"] == SHORT["lr"]
    assert made[0].row.edits[0][0].provenance["after"] == 1
    want = edits(late, world, tmp_path / "fresh")
    assert [m.row.edits[0][0].hash for m in made] == [m.row.edits[0][0].hash for m in want]


def test_what_was_shared_is_told_and_no_time_is_compared(world: Model, tmp_path: Path) -> None:
    first, second = (m.row.edits[0][0].provenance for m in edits(swept(), world, tmp_path))
    assert first["cost"]["remembered"] == 0 < second["cost"]["remembered"]
    assert training_time({"edits": [first]}) is None is training_time({"edits": [second]})
    [alone] = edits(swept(grid={}, share=False), world, tmp_path / "alone")
    assert training_time({"edits": [alone.row.edits[0][0].provenance]})


@pytest.mark.parametrize("name", ["消す", "a" * 300, "a/../b", "..", "con cept/é"])
def test_files_have_names_that_files_may_have(name: str) -> None:
    [p] = points(swept(grid={}, runs=[{"name": name, "method": "esd", "options": SHORT}]))
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,160}\.safetensors", p.file) and not p.file.startswith(".")
    assert p.file != points(swept(grid={}, runs=[{"name": name + "?", "method": "esd", "options": SHORT}]))[0].file


@pytest.mark.parametrize("name", names())
def test_those_that_come_along_can_run(name: str, world: Model) -> None:
    found = sweep(name)
    assert points(found) and found.judged_by() and found.about and found.source
    for p in points(found):
        p.method.check(world, p.concepts)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"grid": {"etta": [1]}}, "'etta'; did you mean 'eta'"),
        ({"runs": []}, "runs in the sweep"),
        ({"runs": [{"name": "x"}]}, "a run has a preset or a method"),
        ({"runs": [{"preset": "esd-y"}]}, "unknown preset 'esd-y'"),
        ({"runs": [{"preset": "uce-2024"}] * 2, "grid": {}}, "two runs of the sweep are called 'uce-2024'"),
        ({"grid": {"eta": [1, 2], "seed": [*range(5001)]}}, "the sweep has 10,002 runs; at most 10,000"),
        ({"concepts": []}, "x erases nothing: give the sweep concepts"),
        ({"snapshots": [9]}, "x eta=1 has 3 steps: there is no snapshot after 9"),
        ({"grid": {"eta": []}}, "grid.eta in the sweep"),
        ({"grid": {"concepts": [5]}}, "concepts of x are 5: give a name, or a list of names"),
        ({"grid": {"seed": [-1]}}, "a seed of x is -1: give a whole number from 0"),
        ({"grid": {"seed": ["abc"]}}, "a seed of x is 'abc'"),
        ({"conceps": ["car"]}, "'conceps'; did you mean 'concepts'"),
    ],
)
def test_what_cannot_run_is_told(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ExpungeError, match=message) as error:
        points(swept(**more))
    assert "\n" not in str(error.value)
