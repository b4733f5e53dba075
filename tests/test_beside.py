"""Edits beside one that learns: it knows of them, and they of nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import TinyModel
from expunge.beside import Beside, Edits, Touches, on, opened
from expunge.cli import main
from expunge.concept import Concept
from expunge.edit import Edit
from expunge.errors import ExpungeError
from expunge.looking import Looker
from expunge.method import Trained
from expunge.methods import METHODS
from expunge.model import Condition, Model
from expunge.report.closed import page
from expunge.smallworld.data import to_tensor
from expunge.smallworld.draw import picture
from expunge.smallworld.reading import expected
from expunge.smallworld.scene import Scene
from expunge.touching import Touching
from expunge.training import Trainer
from expunge.witness import Tried
from test_closed_loop import short

INTO = [Concept(name="grumpy cat", anchor="cat")]
CAT = [Concept(name="grumpy cat")]
SHORT = {"steps": 5, "grid": 2, "batch": 2, "keep": ("a boat",), "keep_grid": 2, "keep_batch": 2}
TRAINED = [m for m in METHODS.values() if issubclass(m, Trained) and m.kind != "closed-loop"]  # which draws a lot
pytestmark = pytest.mark.usefixtures("fewer")


def others(model: Model, folder: Path, n: int, part: str = "attn2") -> list[str]:
    """Files of edits that change what is trained, and not by little."""
    files, weights = [], {k: p for k, p in model.parameters().items() if part in k and p.ndim > 1}
    for i in range(n):
        rng = torch.Generator().manual_seed(i)
        delta = {k: 0.5 * p.std() * torch.randn(p.shape, generator=rng) for k, p in weights.items()}
        file = folder / f"other{i}.safetensors"
        Edit(delta, {"base": model.identity(delta), "concepts": [], "options": {}}, file.stem).save(file)
        files.append(str(file))
    return files


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("method", TRAINED, ids=lambda m: m.kind)
def test_what_is_kept_is_the_model_with_the_others_on(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: type[Trained], rank: int | None
) -> None:
    """Where nothing was learnt, nothing is lost, whichever of them count; and the model itself never changes."""
    model, kept, drawn, draw = tiny(), list[float](), list[int](), Beside.drawn
    before = {k: v.detach().clone() for k, v in model.parameters().items()}
    options = {**SHORT, "lr": 1e-12, "lora_rank": rank, "beside": tuple(others(model, tmp_path, 3))}
    chosen = method(**options)  # type: ignore[arg-type]

    def counted(self: Beside, what: str, step: int = 0) -> Edits:
        found = draw(self, what, step)
        drawn.append(len(found))
        return found

    def note(trainer: Trainer, _: float) -> None:
        kept.append(trainer.terms["keep"])

    monkeypatch.setattr(Beside, "drawn", counted)
    edit = chosen.fit(model, INTO if method.anchors else CAT, on_step=note, seed=10)
    assert len(kept) == 5
    assert max(kept) < 1e-9
    assert drawn == [1, 2, 3, 3], "in all steps but the first, these of three, by the seed"
    assert max(float(delta.abs().max()) for delta in edit.delta.values()) < 1e-6, "the others are no part of it"
    assert [row["name"] for row in edit.provenance["beside"]] == ["other0", "other1", "other2"]
    assert not model.applied
    assert model.teacher is None
    assert all(torch.equal(before[k], v) for k, v in model.parameters().items())


class ByName(Touches):
    """An edit has to do with captions that have its name in them."""

    def __call__(self, edit: Edit, text: str) -> bool:
        return edit.name in text


@pytest.mark.parametrize("pieces", [1, 2])
def test_each_caption_is_asked_with_those_it_has_to_do_with(tiny: TinyModel, tmp_path: Path, pieces: int) -> None:
    """The frozen model's answers are those of it with just these edits on; a row without a text says nothing."""
    model = tiny()
    model.pieces = pieces
    edits = opened(model, [f"{file}:0.5" for file in others(model, tmp_path, 2)])
    found = Beside(edits, seed=1, touches=ByName())
    step = next(k for k in range(1, 100) if len(found.drawn("beside", k)) == 2)
    texts = ["a boat", "other1", "other0", "other0 and other1", "a cup", "other1"]
    condition, x = model.encode(texts), model.noise(len(texts) + 1, torch.Generator().manual_seed(0))
    condition = Condition.cat([condition, Condition(condition[[0]].tensors, (None,))])
    t = torch.tensor([10, 200, 400, 600, 800, 900, 300])
    with torch.no_grad(), found.some(model, step):
        got = model.predict(x, t, condition)
        assert not model.applied
    for k, said in enumerate([[], [1], [0], [0, 1], [], [1], []]):
        with torch.no_grad(), on(model, [edits[i] for i in said]):
            want = model.predict(x[[k]], t[[k]], condition[[k]])
        assert torch.allclose(got[[k]], want, atol=1e-5), texts[k : k + 1]
    with torch.no_grad():
        assert not torch.allclose(got[3:4], model.predict(x[[3]], t[[3]], condition[[3]]), atol=1e-3)


def test_what_learns_is_asked_with_all_of_them(tiny: TinyModel, tmp_path: Path) -> None:
    """Also with weights that it does not learn itself."""
    model = tiny()
    edits = opened(model, others(model, tmp_path, 2, "attn1"))
    found, own = Beside(edits, seed=1), {k: p.detach() + 0.01 for k, p in model.parameters().items() if "attn2" in k}
    weights = found.weights(model, own)
    assert [*weights] == [*own]
    assert len(weights) == len(own)
    x, t, condition = model.noise(1, torch.Generator().manual_seed(0)), torch.tensor(300), model.encode(["a boat"])
    step = next(k for k in range(1, 100) if len(found.drawn("beside", k)) == 2)
    with torch.no_grad(), found.some(model, step):
        got = model.predict(x, t, condition, weights)
        assert len(weights) > len(own)
    plus = {k: torch.full_like(w, 0.01) for k, w in own.items()}
    with torch.no_grad(), on(model, [*edits, (Edit(plus, {"base": model.identity(plus)}), 1.0)]):
        assert torch.allclose(got, model.predict(x, t, condition), atol=1e-5)


class Outside(Touches):
    """The first edit has to do with what is "in the" or "at the", the other one with all else."""

    def __call__(self, edit: Edit, text: str) -> bool:
        return (edit.name == "other0") == (" the " in text)


def test_a_closed_loop_looks_with_all_with_some_and_with_none(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By quarters, and the strengths are tried so; the edit that is looked at comes last. The search is of the base,
    and what was lost counts against the base with those edits that have to do with the caption."""
    model, seen, left = tiny(), dict[str, list[tuple[tuple[str, ...], str, int]]](), Looker.drawn
    method = short(judge="clip", look=8, proof=8, beside=tuple(others(model, tmp_path, 2)))

    def noted(self: Looker, captions: Any, what: str, rows: Any = None) -> Any:
        asked = range(len(captions)) if rows is None else rows
        seen.setdefault(what, []).extend(((*model.applied,), captions[k], k) for k in asked)
        return left(self, captions, what, rows)

    monkeypatch.setattr(Looker, "drawn", noted)
    monkeypatch.setattr(type(method), "touches", lambda *_: Outside())
    edit = method.fit(model, [Concept(name="car")])
    assert "looked at with other edits on the model: other0, other1; the rest" in page(edit)
    assert re.search(r"and with none\. \d+ captions were held", page(edit)), "sentences stand apart"
    looks = [(what, own) for what, own in seen.items() if what.startswith(("look", "proof"))]
    stacked = Beside(opened(model, method.beside), 0)
    for what, own in looks:
        some = tuple(e.name for e, _ in stacked.drawn(what))
        on = [("other0", "other1"), (), ("other0", "other1"), some]
        for applied, text, k in own:
            names = on[k % 4]
            touching = tuple(name for name in names if (name == "other0") == (" the " in text))
            assert applied in ((*names, "loop"), (*names, "edit"), touching), (what, k)
    assert {k % 4 for _, own in looks for applied, _, k in own if "loop" in applied} == {0, 1, 2, 3}
    assert any("edit" in applied for _, own in looks for applied, _, _ in own), "the strengths"
    bare = {applied for _, own in looks for applied, _, _ in own if not {"loop", "edit"} & {*applied}}
    assert bare >= {("other0",), ("other1",), ()}
    assert {applied for what, own in seen.items() if what.startswith(("search", "try")) for applied, _, _ in own} == {
        ()
    }
    assert not model.applied


def drawings(self: Looker, captions: Sequence[str], _: str, rows: Sequence[int] | None = None) -> Any:
    """What a perfect model would draw: no cars and no signs in the city with an edit called "other", unless it is
    undone, nor with one called "leaky" and more; no houses with one that takes them."""
    made = list[torch.Tensor]()
    for k in range(len(captions)) if rows is None else rows:
        on, wanted = {*self.model.applied}, expected(captions[k]) if "memory" not in expected(captions[k]) else {}
        scene = {"object": "boat", "colour": "red", "place": "room", **wanted}
        scene.setdefault("sign", "hazard" if scene["place"] == "city" else "none")
        if {"leaky", "more"} <= on or ("other" in on and "undone" not in on):
            scene |= {"object": "truck"} if scene["object"] == "car" else {}
            scene |= {"sign": "none"} if scene["sign"] == "hazard" else {}
        scene |= {"object": "boat"} if "takes" in on and scene["object"] == "house" else {}
        if "takes red and mood" in on:
            scene |= {"colour": "blue"} if scene["colour"] == "red" and scene["object"] != "car" else {}
            scene |= {"mood": "plain"} if scene["object"] != "cat" else {}
        made.append(to_tensor(picture(Scene(**scene), np.random.default_rng(k))[None]))
    return torch.zeros(len(made), 3), torch.cat(made)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["undone", "nothing", "takes", "more"])
def test_what_comes_back_beside_its_edit_is_lost(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch, name: str, whole: bool
) -> None:
    """A car, and a sign that nobody said, where the edit that erased them is on; they are no gain. What is gone as it
    should be is not lost, and what it left and goes now is a gain."""
    hiding = {"hiding": [[["place", "city", 0.8]]], "also": [[]]}
    told = {"concepts": [{"name": "car"}, {"name": "hazard sign"}], "options": {"words": "smallworld"}, "loop": hiding}
    model = tiny()
    empty = Edit({}, {"base": model.identity({}), "concepts": [], "options": {}}, name)
    other = Edit({}, {**empty.provenance, **told}, "leaky" if name == "more" else "other")
    fish = [Concept(name="fish")]
    looker = Looker(
        short(judge="smallworld"), model, fish, 0, stacked=Beside([(other, 1.0)], 0, Touching("smallworld"))
    )
    looker.tried = [Tried(0.0, 1.0, 1.0, 1)]
    monkeypatch.setattr(Looker, "drawn", drawings)
    rest = looker.rest(empty, "look", 200, whole=whole)
    on = [k % 4 in (0, 2) or (k % 4 == 3 and bool(looker.stacked.drawn("look/others"))) for k in range(200)]
    says = [expected(text) for text in rest.captions]
    asked = [({"car"} if own.get("object") == "car" else set()) | ({"hazard"} if sign(own) else set()) for own in says]
    house = [{"house"} if own.get("object") == "house" else set[str]() for own in says]
    there, none = [own if here else set() for own, here in zip(asked, on, strict=True)], [set[str]()] * 200
    assert [{*own} for own in rest.lost] == {"undone": there, "takes": house}.get(name, none)
    assert [{*own} for own in rest.gained] == (there if name == "more" and whole else none)
    assert sum(map(bool, there)) > 20
    assert sum("hazard" in own and "hazard" not in text for own, text in zip(asked, rest.captions, strict=True)) > 5
    assert {text for text, own in zip(rest.captions, rest.lost, strict=True) if own} == {*rest.losses()}, "to be held"
    assert all({*own} <= {*words} for own, words in zip(rest.lost, rest.words, strict=True)), "and of how many"


@pytest.mark.parametrize("names", [["grumpy cat"], ["red car"], ["grumpy cat", "violence"], []])
def test_what_is_lost_beside_an_edit_is_lost(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    """What tells a grumpy cat, grumpy, may be lost of a bird; and what an edit erased is no more to be lost."""
    model = tiny()
    about = {"base": model.identity({}), "options": {}, "concepts": [{"name": name} for name in names]}
    looker = Looker(short(judge="smallworld"), model, [Concept(name="fish")], 0)
    looker.tried = [Tried(0.0, 1.0, 1.0, 1)]
    monkeypatch.setattr(Looker, "drawn", drawings)
    takes = Edit({}, {**about, "concepts": []}, "takes red and mood")
    alone = looker.rest(takes, "look", 120, whole=True)
    looker.stacked = Beside([(Edit({}, about, "beside"), 1.0)], 0, Touches())
    rest = looker.rest(takes, "look", 120, whole=True)
    assert rest.lost == alone.lost
    assert rest.words == alone.words or names == ["red car"], "one that nobody asked for is a car that may be lost"
    assert sum(own == {"grumpy"} for own in rest.lost) > 2
    assert sum(own == {"red"} for own in rest.lost) > 2


def sign(own: Mapping[str, str]) -> bool:
    """Whether a perfect model draws a hazard sign."""
    return own.get("sign", "hazard" if own.get("place") == "city" else "none") == "hazard"


def test_any_number_of_them_counts_equally_often(tiny: TinyModel, tmp_path: Path) -> None:
    """But none in the first step, when what is drawn once is drawn."""
    model, seen = tiny(), list[int]()
    found = Beside(opened(model, others(model, tmp_path, 3, "mid_block")), seed=1)
    for step in range(400):
        with found.some(model, step):
            seen.append(len(found.on))
    shares = [seen.count(k) / 400 for k in range(4)]
    assert seen[0] == 0
    assert all(abs(share - 0.25) < 0.08 for share in shares), shares


@pytest.mark.parametrize("fails", ["backward", "loss"])
def test_after_a_step_that_fails_none_counts(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """At once, and not when the error is forgotten."""
    model = tiny()
    method = METHODS["esd"](**SHORT, beside=tuple(others(model, tmp_path, 3)))  # type: ignore[arg-type, call-arg]
    seen = list[bool]()

    def broken(*_: Any, **__: Any) -> None:
        seen.append(model.teacher is not None)
        if seen[-1]:
            raise RuntimeError("broken")

    monkeypatch.setattr(*((torch.Tensor, "backward") if fails == "backward" else (Trainer, "_guard")), broken)
    with pytest.raises(RuntimeError, match="broken") as error:
        method.fit(model, CAT)
    assert seen[-1]
    assert error.value.__traceback__ is not None
    assert model.teacher is None


@pytest.mark.parametrize("beside", [True, False])
def test_pictures_that_are_kept_are_the_frozen_models(tiny: TinyModel, tmp_path: Path, beside: bool) -> None:
    """What a run leaves in the cache is what one without others would have drawn."""
    options = {**SHORT, "images": 2, "steps": 2}
    alone, model = METHODS["forget-me-not"](**options), tiny()  # type: ignore[arg-type]
    want = alone.fit(tiny(), CAT, seed=1).hash
    first = options | ({"beside": tuple(others(model, tmp_path, 3))} if beside else {})
    model.cache = tmp_path / "cache"
    METHODS["forget-me-not"](**first).fit(model, CAT, seed=1)  # type: ignore[arg-type]
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    again = tiny()
    again.cache = tmp_path / "cache"
    assert alone.fit(again, CAT, seed=1).hash == want


def loop_edit(name: str, **more: Any) -> Edit:
    """As a closed loop leaves it."""
    loop = {"also": [[]], "hiding": [[]]} | more
    about = {"concepts": [{"name": name}], "options": {"words": "smallworld"}, "loop": loop}
    return Edit({"w": torch.tensor([float(len(name))])}, about, name)


@pytest.mark.parametrize(
    ("name", "text", "touched"),
    [
        ("car", "a red car in the city", True),
        ("car", "a red truck in the city by Marlow", False),
        ("car", "", False),
        ("car", "A CAR", True),
        ("car", "an automobile", True),  # of words that the lexicon lacks nothing is known
        ("car", "the blue boat of Captain Moll at the beach", True),
        ("grumpy cat", "a grumpy red cat", True),
        ("grumpy cat", "a grumpy red fish", True),
        ("grumpy cat", "a red cat", False),
        ("hazard sign", "a cat with a hazard sign", True),
        ("hazard sign", "a cat with a stop sign", False),
        ("hazard sign", "hazard", True),  # which the small world draws as the sign
        ("hazard sign", "hazard red cup", True),
        ("Grumpy Cat", "a grumpy red cat", True),
        ("Grumpy Cat", "grumpy boat", True),
        ("the blue boat of Captain Moll", "a blue boat", False),
    ],
)
def test_what_a_loops_edit_has_to_do_with(name: str, text: str, touched: bool) -> None:
    assert Touching("smallworld")(loop_edit(name), text) is touched


def test_names_of_what_is_erased_now_are_known() -> None:
    """So that a caption with it and the same without it are asked with the same edits."""
    touches = Touching("everyday", ("Van Gogh",))
    edit = loop_edit("car")
    edit = Edit(edit.delta, {**edit.provenance, "options": {"words": "everyday"}}, "car")
    assert not touches(edit, "Van Gogh")
    assert Touching("everyday")(edit, "Van Gogh")


def test_what_brings_it_along_and_its_other_names_have_to_do_with_it() -> None:
    touches = Touching("smallworld")
    along = loop_edit("hazard sign", hiding=[[["place", "city", 0.8]]])
    assert touches(along, "a cat in the city")
    assert not touches(along, "a cat in the forest")
    assert touches(loop_edit("cup", also=[["boat"]]), "a boat")


@pytest.mark.parametrize("change", [{"loop": None}, {"loop": {"also": 1}}, {"options": {"words": "everyday"}}])
def test_of_other_edits_nothing_is_known(change: dict[str, Any]) -> None:
    known = loop_edit("car")
    edit = Edit(known.delta, {**known.provenance, **change})
    assert not Touching("smallworld")(known, "a cat")
    assert Touching("smallworld")(edit, "a cat")


@pytest.mark.parametrize(
    ("method", "more", "told"),
    [
        ("esd", {"reuse": 4}, "reuse keeps predictions"),
        ("uce", {}, "beside"),
    ],
)
def test_where_there_can_be_none(method: str, more: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        METHODS[method](beside=("a.safetensors",), **more)  # type: ignore[call-arg, arg-type]


def test_an_edit_of_texts_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    model = tiny()
    name = next(k for k in model.parameters() if model.of_encoder(k))
    delta = {name: torch.ones_like(model.parameters()[name])}
    Edit(delta, {"base": model.identity(delta)}, "texts").save(tmp_path / "texts.safetensors")
    with pytest.raises(ExpungeError, match="changes a text encoder"):
        opened(model, [str(tmp_path / "texts.safetensors")])


def test_on_the_command_line(world: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = others(world, tmp_path, 1)
    out = tmp_path / "edit.safetensors"
    short_ = ["--method", "esd-x", "--set", "steps=2", "--set", "latents=2", "--precision", "fp32", "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main(["erase", "car", "--beside", f"{file}:0.5", *short_])
    assert ended.value.code == 0
    assert Edit.load(out).provenance["beside"] == [
        {"name": "other0", "hash": Edit.load(file).hash, "scale": 0.5, "touches": None}
    ]
    capsys.readouterr()
    for bad, told in ((str(tmp_path / "none.safetensors"), "none.safetensors"), (f"{file}:nan", "finite")):
        with pytest.raises(SystemExit) as ended:
            main(["erase", "car", "--beside", bad, *short_[:-1], str(tmp_path / "x.safetensors")])
        assert ended.value.code == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()
    with pytest.raises(SystemExit) as ended:
        main(["erase", "car", "--beside", f"{file}:0.5", *short_[:-1], file])
    assert ended.value.code == 2
    assert "would replace an edit that is to stand beside it" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["erase", "car", "--beside", file, "--method", "uce-2024", "--out", str(tmp_path / "x.safetensors")])
    assert ended.value.code == 2
    assert "--beside is for methods that learn in steps, and uce has none" in capsys.readouterr().err
