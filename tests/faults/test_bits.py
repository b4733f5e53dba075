"""One flipped bit in any file that we read back is told, by the file's name, or mended, or harmless; never believed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import TinyModel
from expunge import Concept, Edit, ExpungeError, Request, Settings, generate, smallworld, vision
from expunge.auditing import document
from expunge.families import load
from expunge.files import hash_tensors, sealed, write_json, write_tensors
from expunge.gallery import Store
from expunge.generation import drawn
from expunge.judges.clip import Clip
from expunge.judges.world import World
from expunge.method import Method
from expunge.methods import METHODS
from expunge.model import Model
from expunge.picture import opened
from expunge.plan import plan
from expunge.protocol import protocol
from expunge.report.compare import read
from expunge.training import Snapshots, Trainer, Training

USUAL = settings()
bits = settings(
    max_examples=USUAL.max_examples // 2,
    derandomize=USUAL.max_examples <= 100,
    database=None,
    deadline=None,
    suppress_health_check=[*HealthCheck],
)
Bit = st.integers(0, 2**20 - 1).map(lambda i: i / 2**20)
"""Where in the file, as a share of its bits."""


def flipped(data: bytes, where: float) -> bytes:
    i = int(where * len(data) * 8)
    return data[: i // 8] + bytes([data[i // 8] ^ 1 << i % 8]) + data[i // 8 + 1 :]


def told_or_same(path: Path, data: bytes, where: float, look: Callable[[], Any]) -> bool:
    """Whether the flip is told, with the file's name; else what is read must be what was written."""
    path.write_bytes(data)
    whole = look()
    path.write_bytes(flipped(data, where))
    try:
        assert look() == whole
    except ExpungeError as error:
        assert str(path) in str(error)
        return True
    return False


# edits, snapshots, caches


@pytest.fixture(scope="module")
def edit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("edit") / "edit.safetensors"
    Edit({"a": torch.arange(6.0), "b.bias": torch.ones(2, 2)}, {"base": {"name": "x", "hash": "0" * 64}}).save(file)
    return file


@bits
@given(where=Bit)
def test_of_an_edit(edit: Path, tmp_path: Path, where: float) -> None:
    def look() -> Any:
        found = Edit.load(tmp_path / "edit.safetensors")
        return found.hash, found.provenance

    told_or_same(tmp_path / "edit.safetensors", edit.read_bytes(), where, look)


@bits
@given(where=Bit)
def test_of_a_snapshot(tmp_path: Path, where: float) -> None:
    trainer = Trainer({"w": torch.ones(5)}, Training(steps=3))
    snapshots = Snapshots(tmp_path / "snapshot", "run")
    snapshots.save(trainer)

    def look() -> Any:
        found = snapshots.read()
        assert found
        return hash_tensors(found[0]), found[1]

    told_or_same(snapshots.path, snapshots.path.read_bytes(), where, look)


@pytest.mark.parametrize("where", [0.001, 0.1, 0.5, 0.999])
def test_of_pictures_that_training_draws_once(tiny: TinyModel, tmp_path: Path, where: float) -> None:
    """They are drawn again, and the edit is the same."""
    method: Method = METHODS["ablation"](steps=2, grid=2, batch=2, lr=1e-3, images=2, prompts=("a cat [by {}]",))
    model = tiny()
    model.cache = tmp_path
    whole = method.fit(model, [Concept(name="Marlow")]).hash
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    file.write_bytes(flipped(data, where))
    assert method.fit(model, [Concept(name="Marlow")]).hash == whole
    assert file.read_bytes() == data


# the shipped weights


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's weights, which is opened in their place."""
    folder = shutil.copytree(smallworld.path(), tmp_path / "weights")
    monkeypatch.setattr(smallworld, "__file__", str(tmp_path / "__init__.py"))
    vision.opened.cache_clear()
    yield folder
    vision.opened.cache_clear()


OPENED: dict[str, Callable[[], Any]] = {
    "clip": lambda: Clip(labels=("a", "b")).network,
    "judge": lambda: World().network,
    "unet_gold": lambda: load("smallworld-gold", device="cpu"),
    "": lambda: load("smallworld", device="cpu"),
}


@pytest.mark.parametrize("name", smallworld.recorded(smallworld.path()))
def test_of_any_shipped_file(shipped: Path, name: str) -> None:
    part = name.split("/")[0]
    path, opener = shipped / name, OPENED.get(part, OPENED[""])
    path.write_bytes(flipped(path.read_bytes(), 0.7))
    with pytest.raises(ExpungeError, match="is missing or damaged; install or build") as told:
        opener()
    assert str(path) in str(told.value)


def test_an_undamaged_copy_is_opened(shipped: Path) -> None:
    for opener in OPENED.values():
        opener()
    (shipped / "judge" / "model.safetensors").unlink()
    with pytest.raises(ExpungeError, match=r"judge/model\.safetensors is missing or damaged"):
        World().network  # noqa: B018
    load("smallworld", device="cpu")  # which needs no judge


@bits
@given(where=Bit)
def test_of_the_hashes_themselves(tmp_path: Path, where: float) -> None:
    """One that is damaged is told, or is not of a file that is opened."""
    if not (tmp_path / "weights").exists():
        shutil.copytree(smallworld.path(), tmp_path / "weights")
    path = tmp_path / "weights" / smallworld.NAME
    path.write_bytes(flipped((smallworld.path() / smallworld.NAME).read_bytes(), where))
    try:
        smallworld.check(tmp_path / "weights")
    except ExpungeError as error:
        assert str(tmp_path / "weights") in str(error)
    else:
        assert smallworld.recorded(tmp_path / "weights") == smallworld.recorded(smallworld.path())


# pictures and what is said of them


@pytest.fixture(scope="module")
def picture(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("picture")
    (row,) = generate(tiny(), [Request("a cat", 0)], Settings(steps=2), out)
    return Path(out / row["file"])


def test_of_a_picture(picture: Path, tmp_path: Path) -> None:
    """Of every few bits, since but one in twenty goes through a PNG's compression unseen."""
    data, path = picture.read_bytes(), tmp_path / "a.png"
    n = 4000
    told = [told_or_same(path, data, i / n, lambda: opened(path).tolist()) for i in range(n)]
    assert sum(told) > 0.9 * n


@bits
@given(where=Bit)
def test_of_verdicts_and_features(tmp_path: Path, where: float) -> None:
    """A damaged line counts as none, and what it said is found again."""
    values = {"a-0.png": {"object": "car", "p": 0.125}, "b-1.png": [0.1, -2.5e-7], "é|b.png": 3.0}
    store = Store(tmp_path / "x.jsonl")
    store.path.unlink(missing_ok=True)
    store.add([*values], [*values.values()])
    store.path.write_bytes(flipped(store.path.read_bytes(), where))
    assert 1 <= len(store.read()) < len(values)
    assert store.complete([*values], lambda names: [values[n] for n in names], "again") == [*values.values()]
    assert store.read() == values


@pytest.fixture(scope="module")
def audit(world: Model) -> dict[str, Any]:
    return document(plan(protocol("smallworld-objects"), world, [], limit=4), world, [])


@bits
@given(where=Bit)
def test_of_scores(audit: dict[str, Any], tmp_path: Path, where: float) -> None:
    file = tmp_path / "scores.json"
    write_json(file, sealed(audit))

    def look() -> Any:
        return {key: value for key, value in read(tmp_path)[0].items() if key in audit}

    told_or_same(file, file.read_bytes(), where, look)


def test_an_audit_without_a_seal_is_read(audit: dict[str, Any], tmp_path: Path) -> None:
    """As older versions left them."""
    write_json(tmp_path / "scores.json", audit)
    assert read(tmp_path)[0]["requests"] == audit["requests"]


# NaN


def test_an_edit_with_nan_is_told(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        Edit({"a.bias": torch.tensor([0.0, value])}, {}).save(tmp_path / "edit.safetensors")
        with pytest.raises(ExpungeError, match=r"a\.bias in .*edit\.safetensors holds NaN"):
            Edit.load(tmp_path / "edit.safetensors")


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"])
def test_a_model_with_nan_is_told_by_the_weights_name(tmp_path: Path, part: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(smallworld.path(), tmp_path / "world")
    tensors = load_file(folder / f"{part}.safetensors")
    name = next(n for n, v in tensors.items() if v.is_floating_point() and v.ndim > 1)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, folder / f"{part}.safetensors", {"format": "pt"})
    with pytest.raises(ExpungeError, match=f"in the part '{part.split('/')[0]}' of .* holds NaN"):
        load(folder, device="cpu")


def test_a_lora_with_nan_is_told(world: Model, tmp_path: Path) -> None:
    from expunge import formats

    module = next(n for n in world.parameters() if n.endswith("to_k.weight")).removesuffix(".weight")
    out, wide = world.parameters()[f"{module}.weight"].shape
    factors = {f"unet.{module}.lora_A.weight": torch.ones(1, wide), f"unet.{module}.lora_B.weight": torch.ones(out, 1)}
    write_tensors(tmp_path / "x.safetensors", factors, {})
    assert formats.read(tmp_path / "x.safetensors", world).delta
    factors[f"unet.{module}.lora_A.weight"][0, 0] = float("nan")
    write_tensors(tmp_path / "x.safetensors", factors, {})
    with pytest.raises(ExpungeError, match=f"{module}.weight in .* holds NaN"):
        formats.read(tmp_path / "x.safetensors", world)


def test_no_black_picture_is_kept(tiny: TinyModel, tmp_path: Path) -> None:
    """Latents that overflow on their way: those before are kept, and the first one is named."""
    model, cat = tiny(), [Request("a cat", 0), Request("a dog", 1, cfg=1e38)]
    with pytest.raises(ExpungeError, match="the picture of 'a dog', seed 1, is NaN; lower"):
        drawn(model, cat, Settings(steps=2), tmp_path)
    assert [*tmp_path.iterdir()] == []
    generate(model, cat[:1], Settings(steps=2), tmp_path)
    assert len([*tmp_path.glob("*.png")]) == 1
