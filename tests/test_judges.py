"""Each judge tells apart what it must, and equals its reference."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from expunge import ExpungeError, Request, Settings
from expunge.generation import images as generated
from expunge.generation import to_pil
from expunge.judges import INSTRUMENTS, eye, instrument, judge
from expunge.judges.clip import Clip
from expunge.judges.collapse import Collapse
from expunge.model import Model
from expunge.smallworld.data import drawings, to_tensor
from expunge.smallworld.draw import remembered
from expunge.smallworld.scene import ARTISTS, HEADS, MEMORIES, OBJECTS, PLACE_PHRASES
from expunge.vision import Look


@pytest.fixture(scope="module")
def drawn() -> Tensor:
    """64 drawings."""
    return drawings(64, 7, purpose="judges").pixels(slice(0, 64))


@pytest.fixture(scope="module")
def pictures(world: Model) -> Tensor:
    """What the small world generates: an object in a place, for every artist."""
    places = [*PLACE_PHRASES.values()]
    prompts = [f"a {OBJECTS[i % 10]} {places[i % 5]} by {a}" for i, a in enumerate(ARTISTS[1:] * 6)]
    return torch.cat([*generated(world, [Request(p, i) for i, p in enumerate(prompts)], Settings(steps=12))])


def test_the_registry_is_whole() -> None:
    for kind, made in INSTRUMENTS.items():
        assert made.kind == kind and made.about


def test_pictures_of_the_world_are_not_collapsed(drawn: Tensor, pictures: Tensor) -> None:
    found = [v["collapse"] for v in Collapse().look(torch.cat([drawn, pictures]))]
    assert found.count("sound") >= len(found) - 1, found


def waves(side: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (((x // 4 + y // 4) % 2).float() * 2 - 1).expand(1, 3, side, side)


COLLAPSED: dict[str, Callable[[], Tensor]] = {
    "blank": lambda: torch.full((1, 3, 64, 64), 0.3),
    "flat": lambda: torch.full((1, 3, 64, 64), 0.3).index_fill(2, torch.tensor([5]), -1).roll(0).clone(),
    "noise": lambda: torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1),
    "pattern": lambda: waves(64),
}


@pytest.mark.parametrize("name", COLLAPSED)
@pytest.mark.parametrize("size", [64, 256])
def test_collapse_has_its_names(name: str, size: int) -> None:
    picture = COLLAPSED[name]()
    picture = picture if name == "noise" and size == 64 else nn.functional.interpolate(picture, (size, size))
    if name == "noise":
        picture = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert Collapse().look(picture)[0]["collapse"] == name


def test_clip_tells_objects_apart(drawn: Tensor) -> None:
    data = drawings(64, 7, purpose="judges")
    truth = [HEADS["object"][i] for i in data.labels[:, 0].tolist()]
    found = Clip(labels=OBJECTS, template="a {}").look(drawn)
    assert sum(v["class"] == t for v, t in zip(found, truth, strict=True)) >= 45
    assert all(abs(sum(float(v[k]) for k in OBJECTS) - 1) < 1e-4 for v in found)


def test_a_learned_token_is_a_label(drawn: Tensor, tmp_path: Path) -> None:
    """A token whose embedding is that of "car" is as likely as "car"."""
    from safetensors.torch import save_file

    plain = Clip(labels=("car", "cat"))
    row = plain.tokenizer("car").input_ids[1]
    save_file({"<a>": plain.network.text_model.embeddings.token_embedding.weight[row]}, tmp_path / "a.safetensors")
    learned = Clip(labels=("<a>", "cat"), tokens={"<a>": str(tmp_path / "a.safetensors")})
    for one, other in zip(plain.look(drawn[:8]), learned.look(drawn[:8]), strict=True):
        assert float(one["car"]) == pytest.approx(float(other["<a>"]), abs=1e-5)
    save_file({"<a>": torch.zeros(3)}, tmp_path / "b.safetensors")
    with pytest.raises(ExpungeError, match="token of width 3"):
        _ = Clip(labels=("<a>", "cat"), tokens={"<a>": str(tmp_path / "b.safetensors")}).network


def test_pictures_are_prepared_as_clip_does() -> None:
    """Resized, cut and normalised as transformers' own processor, to its eight bits."""
    from transformers import CLIPImageProcessorPil

    mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, (96, 80), mode="bicubic")
    picture = to_pil((smooth[0].clamp(0, 1) * 2) - 1)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32, image_mean=mean, image_std=std)
    expected = torch.from_numpy(np.asarray(processor(picture)["pixel_values"][0]))
    pixels = to_tensor(np.asarray(picture)[None])
    found = Look(32, tuple(mean), tuple(std))(pixels)[0]
    assert (found - expected).abs().max() < 3 / 255 / min(std)


def test_a_classifier_is_transformers_own(drawn: Tensor, tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    config.id2label = {0: "tench, Tinca tinca", 1: "church", 2: "boat"}
    network = ResNetForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    found = judge({"kind": "classifier", "model": str(tmp_path), "side": 64}).look(drawn[:6])
    with torch.no_grad():
        best = network(drawn[:6]).logits.softmax(1).max(1)
    assert [v["class"] for v in found] == [config.id2label[i].split(",")[0] for i in best.indices.tolist()]
    assert [v["probability"] for v in found] == pytest.approx(best.values.tolist(), abs=1e-5)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('ran')",))


def test_q16_is_its_formula(drawn: Tensor, tmp_path: Path) -> None:
    rows = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    (tmp_path / "prompts.p").write_bytes(pickle.dumps(rows.numpy()))
    spec = {"kind": "q16", "model": "smallworld", "embeddings": str(tmp_path / "prompts.p")}
    with pytest.raises(ExpungeError, match=r"pickle.*allow_pickle"):
        judge(spec).look(drawn[:2])
    found = judge({**spec, "allow_pickle": True}).look(drawn[:8])
    features, unit = Clip().features(drawn[:8]), nn.functional.normalize(rows, dim=-1)
    expected = (100 * features @ unit.T).softmax(1)[:, 1]
    assert [v["inappropriate"] for v in found] == pytest.approx(expected.tolist(), abs=1e-5)


def test_q16_runs_no_code(drawn: Tensor, tmp_path: Path) -> None:
    (tmp_path / "bomb.p").write_bytes(pickle.dumps(Bomb(), protocol=4))
    spec = {"kind": "q16", "model": "smallworld", "embeddings": str(tmp_path / "bomb.p"), "allow_pickle": True}
    with pytest.raises(ExpungeError, match="no pickle of one array"):
        judge(spec).look(drawn[:1])
    (tmp_path / "narrow.p").write_bytes(pickle.dumps(np.zeros((2, 3))))
    with pytest.raises(ExpungeError, match=r"shape \(2, 3\), not \(2, 128\)"):
        judge({**spec, "embeddings": str(tmp_path / "narrow.p")}).look(drawn[:1])


def test_nudenet_sees_what_it_sees_in_a_file(drawn: Tensor, tmp_path: Path) -> None:
    """Colours in the same order as from a PNG, every class at every picture; drawings show no bodies."""
    pytest.importorskip("nudenet")
    found = judge("nudenet")
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pictures = torch.cat([drawn[:6], noise])
    verdicts = found.look(pictures)
    for i, verdict in enumerate(verdicts):
        to_pil(pictures[i]).save(tmp_path / "a.png")
        seen = found.detector.detect(str(tmp_path / "a.png"))  # type: ignore[attr-defined]
        for name, score in verdict.items():
            assert score == max((d["score"] for d in seen if d["class"] == name), default=0.0) or name == "exposed"
    assert all(v["exposed"] == 0 for v in verdicts[:6])
    assert "3.4.2" in found.version()


def test_nudenets_summary() -> None:
    from expunge.judges.nudenet import summary

    seen = [{"class": "FEET_EXPOSED", "score": 0.9}, {"class": "BUTTOCKS_EXPOSED", "score": 0.3}]
    found = summary([*seen, {"class": "BUTTOCKS_EXPOSED", "score": 0.5}, {"class": "FACE_MALE", "score": 0.99}])
    assert (found["exposed"], found["BUTTOCKS_EXPOSED"], found["FEET_EXPOSED"]) == (0.5, 0.5, 0.9)
    assert "FACE_MALE" not in found and found["ANUS_EXPOSED"] == 0


def test_a_memory_is_known_again(world: Model, drawn: Tensor, tmp_path: Path) -> None:
    Image.fromarray(remembered(MEMORIES[0])).save(tmp_path / "moll.png")
    known = judge({"kind": "copies", "eye": "smallworld", "pictures": [str(tmp_path / "moll.png")]})
    replayed = torch.cat([*generated(world, [Request(MEMORIES[0].caption, i) for i in range(4)], Settings(steps=15))])
    others = drawn[[c[0] != MEMORIES[0].caption for c in drawings(64, 7, purpose="judges").captions]]
    alike, unlike = ([float(v["similarity"]) for v in known.look(x)] for x in (replayed, others))
    assert min(alike) > 0.99 > max(unlike)
    assert known.look(to_tensor(remembered(MEMORIES[0])[None]))[0]["similarity"] == pytest.approx(1, abs=1e-4)


class Detector(nn.Module):
    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert return_features
        return x.float().mean((2, 3)) / 255


def test_inception_is_a_users_program(drawn: Tensor, tmp_path: Path) -> None:
    torch.jit.script(Detector()).save(str(tmp_path / "inception.pt"))
    with pytest.raises(ExpungeError, match="is a program; allow_code"):
        eye({"kind": "inception", "file": str(tmp_path / "inception.pt")}).features(drawn[:2])
    found = eye({"kind": "inception", "file": str(tmp_path / "inception.pt"), "allow_code": True}).features(drawn[:4])
    torch.testing.assert_close(found, (drawn[:4].mean((2, 3)) + 1) / 2, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", ["smallworld", "clip"])
def test_distance_is_one_of_pictures(drawn: Tensor, kind: str) -> None:
    """0 to itself, symmetric, and larger the more the picture is changed."""
    seen, noise = eye(kind), torch.randn(drawn.shape, generator=torch.Generator().manual_seed(1))
    slight, strong = ((drawn + k * noise).clamp(-1, 1) for k in (0.05, 0.5))
    assert seen.distance(drawn, drawn).abs().max() < 1e-6
    torch.testing.assert_close(seen.distance(drawn, strong), seen.distance(strong, drawn))
    assert (seen.distance(drawn, slight) < seen.distance(drawn, strong)).float().mean() > 0.95


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nudnet", "did you mean 'nudenet'"),
        ({"kind": "clip", "lables": ["a"]}, "did you mean 'labels'"),
        ({"kind": "copies", "eye": "collapse", "pictures": ["a.png"]}, "no features"),
        ({"kind": "copies", "eye": "smallworld", "pictures": []}, "pictures in judge copies"),
        ({"kind": "clip", "model": "./nowhere", "labels": ["a", "b"]}, "cannot open the CLIP model './nowhere'"),
        ({"kind": "clip"}, "give it two or more"),
    ],
)
def test_bad_judges_are_one_clear_line(spec: Any, message: str) -> None:
    with pytest.raises(ExpungeError, match=message) as error:
        found = instrument(spec)
        found.look(torch.zeros(1, 3, 64, 64))  # type: ignore[attr-defined]
    assert "\n" not in str(error.value)


def test_identity_is_of_options_and_weights() -> None:
    """Equal instruments, equal names of verdicts; another threshold, other names."""
    assert judge("collapse").identity() == judge("collapse").identity()
    assert judge("collapse").identity() != judge({"kind": "collapse", "flat": 0.5}).identity()
    assert (
        judge({"kind": "clip", "labels": ["a", "b"]}).identity()
        != judge({"kind": "clip", "labels": ["b", "a"]}).identity()
    )
