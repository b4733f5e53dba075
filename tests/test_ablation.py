"""Concept ablation's losses, its captions, its presets, and the pictures that it draws once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import TinyModel
from expunge.concept import Concept
from expunge.erasure import concepts_of
from expunge.errors import ExpungeError
from expunge.generation import Request, Settings, images, to_pil
from expunge.methods.ablation import Ablation, likeness
from expunge.model import Model
from expunge.objective import Learner
from expunge.picture import opened
from expunge.recipe import preset
from expunge.smallworld.scene import MEMORIES
from expunge.training import fingerprint

GRUMPY = [Concept(name="grumpy cat", anchor="cat")]
SHORT = {"steps": 3, "images": 8, "grid": 2, "batch": 3, "lr": 1e-3}


def test_captions() -> None:
    """An anchor is replaced where a caption says it; a style is what stands in brackets."""
    method = Ablation(prompts=("a red cat", "a catfish", "a cat [by {}]"))
    style = Concept(name="Devi")
    assert method.pairs(GRUMPY) == [("a red grumpy cat", "a red cat")]
    assert method.pairs([style]) == [("a cat by Devi", "a cat")]


def test_captions_of_a_file_and_of_the_vocabulary(world: Model, tmp_path: Path) -> None:
    """Words near the anchor, or near the style, in a caption; never the concept's own."""
    (tmp_path / "captions.txt").write_text("# mine\na black cat\n\na dog\n")
    method = Ablation(file=tmp_path / "captions.txt", words=3, **SHORT)  # type: ignore[arg-type]
    near = method.near(world, GRUMPY)
    assert len(near[0]) == 3
    assert not {"cat", "grumpy"} & set(near[0])
    pairs = method.pairs(GRUMPY, near)
    assert pairs[0] == ("a black grumpy cat", "a black cat")
    assert pairs[1] == (f"a grumpy cat and a {near[0][0]}", f"a cat and a {near[0][0]}")
    assert len(pairs) == 4
    style = Ablation(words=2, **SHORT).pairs([Concept(name="Devi")], [["house", "boat"]])  # type: ignore[arg-type]
    assert style == [("a house in the style of Devi", "a house"), ("a boat in the style of Devi", "a boat")]
    before = world.meter.passes
    method.fit(world, GRUMPY)
    assert world.meter.passes - before == method.passes(GRUMPY)


def test_an_anchor_without_captions_gets_templates() -> None:
    pairs = Ablation(prompts=("a dog",)).pairs(GRUMPY)
    assert ("a photo of a grumpy cat", "a photo of a cat") in pairs
    with pytest.raises(ExpungeError, match="give an anchor"):
        Ablation().pairs([Concept(name="Devi")])


def test_an_arrow_names_the_anchor() -> None:
    assert concepts_of(["grumpy cat -> cat"]) == tuple(GRUMPY)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("variant", ["model", "noise"])
def test_the_loss_is_the_papers(tiny: TinyModel, variant: str, kind: str) -> None:
    model = tiny(prediction_type=kind)
    student = {k: v.detach() + 0.01 for k, v in model.parameters().items() if "attn2.to_k" in k}
    method = Ablation(**SHORT, variant=variant, regularise=0.5)  # type: ignore[arg-type]
    objective = method.objective(model, GRUMPY, Learner(student), 3)
    route = method.part(model, GRUMPY, Learner(student), 3).route
    points, terms, pairs = route.points(1), next(objective(1)), method.pairs(GRUMPY)

    def e(i: int) -> torch.Tensor:
        return model.predict(points.x_t, points.t, model.encode([pairs[int(j)][i] for j in points.which]), student)

    alpha, truth = model.pipeline.scheduler.alphas_cumprod[points.t].view(-1, 1, 1, 1), points.frozen["truth"]
    if kind == "epsilon":
        x_0 = (points.x_t - (1 - alpha).sqrt() * truth) / alpha.sqrt()
    else:
        x_0 = alpha.sqrt() * points.x_t - (1 - alpha).sqrt() * truth
    apart = (x_0[:, None] - route.clean()[None]).flatten(2).abs().amax(-1)
    assert apart.amin(1).max() < 1e-2  # the truth leads from x_t back to a drawn picture
    target = e(1) if variant == "model" else truth
    torch.testing.assert_close(terms["erase"], (e(0) - target).square().mean())
    torch.testing.assert_close(terms["anchor"], 0.5 * (e(1) - truth).square().mean())


@pytest.mark.parametrize("options", [{}, {"variant": "noise"}, {"regularise": 1.0}, {"keep": ("a dog",)}])
def test_passes_are_as_announced(tiny: TinyModel, options: dict[str, object]) -> None:
    model, method = tiny(), Ablation(**SHORT | options)  # type: ignore[arg-type]
    method.fit(model, GRUMPY)
    assert model.meter.passes == method.passes(GRUMPY)


def test_pictures_are_drawn_once_and_kept(tiny: TinyModel, tmp_path: Path) -> None:
    """A second run reads them, and ends in the same edit; other captions need other pictures."""
    model, method = tiny(), Ablation(**SHORT)  # type: ignore[arg-type]
    plain = method.fit(model, GRUMPY)
    model.cache = tmp_path
    first, drawn = method.fit(model, GRUMPY), model.meter.passes
    second, again = method.fit(model, GRUMPY), model.meter.passes
    assert plain.hash == first.hash == second.hash
    assert again - drawn == method.passes(GRUMPY) - 2 * 2 * 8
    assert len(list(tmp_path.iterdir())) == 1
    method.fit(model, [Concept(name="grumpy dog", anchor="dog")])
    assert len(list(tmp_path.iterdir())) == 2
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    assert method.fit(model, GRUMPY).hash == plain.hash  # a damaged cache is none
    model.cache = tmp_path / file.name  # nor is a file a folder
    assert method.fit(model, GRUMPY).hash == plain.hash


def test_pictures_like_the_memorised_one_are_drawn_again(world: Model, tmp_path: Path) -> None:
    """Of a caption that replays its picture, none is accepted; of paraphrases, those that differ, and they take the
    places of what is refused to the end, each with its own caption."""
    memory = MEMORIES[0]
    drawn = next(images(world, [Request(memory.caption, 0)], Settings(steps=10)))
    to_pil(drawn[0]).save(tmp_path / "boat.png")
    concept = [Concept(name=memory.caption)]
    about = {"images": 6, "grid": 5, "steps": 1, "picture": tmp_path / "boat.png"}
    fair = Ablation(**about, prompts=("a blue boat at the beach", "a red boat"))  # type: ignore[arg-type]
    assert fair.pairs(concept)[0] == (memory.caption, "a blue boat at the beach")
    route = fair.part(world, concept, Learner({}), 0).route
    own = world.latents(opened(tmp_path / "boat.png", world.side))
    assert likeness(route.clean(), own).max() <= 0.5
    mixed = Ablation(**about, prompts=(memory.caption, "a red boat")).part(world, concept, Learner({}), 0).route  # type: ignore[arg-type]
    assert likeness(mixed.clean(), own).max() <= 0.5
    assert all((mixed.points(step).which == 1).all() for step in range(9))
    replayed = Ablation(**about, prompts=(memory.caption,))  # type: ignore[arg-type]
    with pytest.raises(ExpungeError, match="none of 6 pictures was accepted"):
        replayed.part(world, concept, Learner({}), 0).route.clean()


def test_files_are_known_by_what_they_hold(tiny: TinyModel, tmp_path: Path) -> None:
    """So that a run does not resume with other captions, and an edit says what it was made of."""
    file, model, said = tmp_path / "captions.txt", tiny(), []
    for text in ("a cat in a room\n", "a cat\n"):
        file.write_text(text)
        said.append(Ablation(file=file).describe(model, GRUMPY, 0))
    assert said[0] != said[1]
    assert fingerprint(said[0]) != fingerprint(said[1])


ALL = {"optimiser": "adamw", "weight_decay": 1e-2, "guidance": 6.0, "grid": 25, "images": 1000, "variant": "model"}
STYLE = {"scope": "xattn-strict", "steps": 200, "batch": 8, "regularise": 0.0}
PAPER = {
    "ablation-style-2023": {**STYLE, "lr": 1.6e-5},
    "ablation-object-2023": {**STYLE, "lr": 3.2e-5, "regularise": 1.0},
    "ablation-nudity-2023": {**STYLE, "scope": "attention", "steps": 400, "lr": 3.2e-5},
    "ablation-memorised-2023": {"scope": "full", "steps": 400, "batch": 2, "lr": 2e-6, "regularise": 1.0},
}


@pytest.mark.parametrize("name", PAPER)
def test_presets_are_the_published_values(name: str) -> None:
    own = {k: v for k, v in preset(name).options.items() if k != "prompts"}
    assert Ablation(**own).model_dump() == Ablation().model_dump() | ALL | PAPER[name]
