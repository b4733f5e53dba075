"""Whatever a file or a text holds: an answer or one of our errors, soon; no code of it runs, and nothing is reached or
written that was not asked for.

`pytest tests/faults --hypothesis-profile=deep` tries more.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from expunge import formats, picture
from expunge.cli import readable
from expunge.cli.parts import sharded
from expunge.concept import filled
from expunge.edit import Edit, scaled
from expunge.erasure import build_method, concept_set, concepts_of
from expunge.errors import ExpungeError
from expunge.families import load
from expunge.files import home, read_tensors, sealed, write_tensors
from expunge.formats.kohya import named
from expunge.formats.lora import METADATA
from expunge.gallery import Store
from expunge.generation import Request, Settings, file_name
from expunge.guidance import PRESETS, guidance
from expunge.judges import INSTRUMENTS, filtering
from expunge.merge import merge
from expunge.model import Model
from expunge.prompts import READERS, of_file
from expunge.protocol import Protocol, changed, protocol
from expunge.recipe import assignments, called, read
from expunge.report.compare import comparison
from expunge.result import Result
from expunge.score import Change, rate
from expunge.sweep import Point, points, sweep
from expunge.variant import Variant, combined, of_edit

USUAL = settings()
fuzz = settings(
    max_examples=USUAL.max_examples // 2,
    derandomize=USUAL.max_examples <= 100,
    database=None,
    deadline=10_000,
    suppress_health_check=[*HealthCheck],
)
pytestmark = pytest.mark.timeout(USUAL.max_examples + 20)


def told(call: Callable[[], Any]) -> Any:
    """What the call returns; None if it raises an error of ours, which is a line that can be printed."""
    try:
        return call()
    except ExpungeError as error:
        assert str(error).encode()
        return None


class Canary:
    """A pickle that leaves a file if it is executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """Who reaches for the network fails."""

    def barred(*_: Any, **__: Any) -> None:
        pytest.fail("the network was reached for")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto", "bind"):
            patch.setattr(socket.socket, name, barred)
        patch.setattr(socket, "getaddrinfo", barred)
        yield


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, deep in an empty one; what is written beside it fails the test."""
    inner = tmp_path / "a" / "b" / "c" / "work"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    yield inner
    assert [p for p in tmp_path.rglob("*") if p not in inner.parents and p != inner and inner not in p.parents] == []
    assert not [*inner.rglob("canary")]


NASTY: list[Any] = [
    "", " ", "\0", "a\0b", "../../x", "/etc/passwd", "~nobody-of-that-name/x", "a" * 300, "\ud800", "é" * 200, "{}",
    "{a.__class__}", "{x!r:>99999999999}", "[" * 50, "re:(", "1e999", "nan", "-1", "1e-5", "no", "\u2028", "x,y=1",
    10**400, -1, 2**63, 0, 1.5, -0.0, float("nan"), float("inf"), True, None, [], {}, [[]], {"": {}}, {"kind": "clip"},
]  # fmt: skip
Nasty = st.sampled_from(NASTY)
Json = st.recursive(
    Nasty | st.text(max_size=8) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def spoilt(draw: st.DrawFn, value: Any) -> Any:
    """The value with one of its parts replaced, left out or doubled."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(Json)
    keys = [*value] if isinstance(value, dict) else [*range(len(value))]
    key, copy = draw(st.sampled_from(keys)), value.copy()
    what = draw(st.sampled_from(["go on", "go on", "go on", "leave out", "add"]))
    if what == "leave out":
        del copy[key]
    elif what == "add" and isinstance(copy, dict):
        copy[draw(st.text(max_size=5))] = draw(Json)
    elif what == "add":
        copy.append(draw(Json))
    else:
        copy[key] = draw(spoilt(value[key]))
    return copy


def used(edit: Edit | None, model: Model) -> None:
    """All that is done with a foreign edit."""
    if edit is None:
        return
    row = Variant(edit.name, edits=((edit, 1.0),))
    told(lambda: (row.about(), row.concepts(), merge([(edit, 1.0)])))
    if told(lambda: edit.check(model) or True):
        with edit.on(model):
            pass


# edits


@pytest.fixture(scope="module")
def good(world: Model, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of an edit."""
    delta = {"conv_in.bias": torch.full_like(world.parameters()["conv_in.bias"], 0.5)}
    file = tmp_path_factory.mktemp("good") / "good.safetensors"
    about = {"base": {"name": world.name, "hash": world.hash}, "concepts": [{"name": "car"}], "cost": {"seconds": 1}}
    Edit(delta, about).save(file)
    return file.read_bytes()


@fuzz
@given(data=st.binary(max_size=200))
@example(data=struct.pack("<Q", 2**63) + b"{}")
@example(data=struct.pack("<Q", 200_000) + b"[" * 200_000)
@example(data=b"\x80\x04" + b"\0" * 20)
def test_any_bytes(place: Path, world: Model, data: bytes) -> None:
    """As an edit, a picture, another tool's weights, a checkpoint."""
    for name in ("x.safetensors", "x.bin", "x.ckpt"):
        (place / name).write_bytes(data)
    told(lambda: Edit.load("x.safetensors"))
    told(lambda: picture.read(Path("x.bin")))
    told(lambda: formats.read(Path("x.bin"), world, allow_pickle=True))


@fuzz
@given(data=st.data())
def test_a_damaged_edit(place: Path, world: Model, good: bytes, data: st.DataObject) -> None:
    """Bytes of it replaced, left out, put in."""
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(raw) - 1))
        n = data.draw(st.integers(0, 5))
        raw[i : i + n] = data.draw(st.binary(max_size=5))
    (place / "x.safetensors").write_bytes(raw)
    used(told(lambda: Edit.load("x.safetensors")), world)


Kinds = st.sampled_from(
    ["F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "C64", "Q4", "u8"]
)
Sizes = st.lists(st.sampled_from([0, 1, 2, 4, 16, -1, 2**31, 2**62, 2**63 + 5, 1.5, "2", None]), max_size=4)
Offsets = st.lists(st.sampled_from([0, 4, 16, 64, 63, -4, 2**63, 10**30]), min_size=1, max_size=3)
Names = st.sampled_from(["conv_in.bias", "x.lora_A", "x.lora_B", "x.rows", "x.values", "../../x", "a\0b", "é"])
Entries = st.fixed_dictionaries({"dtype": Kinds, "shape": Sizes, "data_offsets": Offsets})


@fuzz
@given(
    entries=st.dictionaries(Names, Entries | Json, max_size=3),
    about=st.none() | Json | st.dictionaries(st.sampled_from(["expunge", "sha256", "format"]), st.text(max_size=9)),
    length=st.none() | st.integers(0, 2**64 - 1),
    body=st.integers(0, 130),
)
def test_any_header(
    place: Path, world: Model, entries: dict[str, Any], about: Any, length: int | None, body: int
) -> None:
    text = json.dumps(entries | ({} if about is None else {"__metadata__": about})).encode()
    head = struct.pack("<Q", len(text) if length is None else length)
    (place / "x.safetensors").write_bytes(head + text + b"\1" * body)
    told(lambda: read_tensors(Path("x.safetensors")))
    told(lambda: Edit.load("x.safetensors"))
    told(lambda: formats.read(Path("x.safetensors"), world))


ABOUT = {
    "base": {"name": "smallworld", "hash": "0" * 64}, "concepts": [{"name": "car", "within": None}],
    "cost": {"seconds": 1.0, "passes": 1}, "method": "esd",
}  # fmt: skip
Numbers = st.sampled_from([torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64])
Tensors = st.builds(
    lambda shape, kind, fill: torch.full(shape, fill).to(kind),
    st.lists(st.sampled_from([0, 1, 2, 4, 32, 320]), max_size=4).filter(lambda shape: prod(shape) < 10**5),
    Numbers,
    st.sampled_from([0.0, 1.0, -1.0, float("nan"), float("inf"), 1e38]),
)


@fuzz
@given(about=spoilt(ABOUT) | Json, tensors=st.dictionaries(Names, Tensors, min_size=1, max_size=3))
@example(about=ABOUT, tensors={"x.lora_A": torch.zeros(1, 2**20), "x.lora_B": torch.zeros(2**20, 1)})
@example(about=ABOUT, tensors={"x.lora_A": torch.zeros(0, 2**20), "x.lora_B": torch.zeros(2**20, 0)})
@example(about=ABOUT, tensors={"x.rows": torch.zeros(2**21, dtype=torch.uint8), "x.values": torch.zeros(0, 2**21)})
@example(about=ABOUT, tensors={"x.lora_A": torch.ones(1, 1).bool(), "x.lora_B": torch.ones(1, 1).bool()})
@example(about=ABOUT | {"concepts": [1]}, tensors={"conv_in.bias": torch.zeros(32)})
@example(about=ABOUT, tensors={"x": torch.zeros(1, 1), "x.lora_A": torch.zeros(1, 1), "x.lora_B": torch.zeros(1, 1)})
def test_sealed_edits_of_others(place: Path, world: Model, about: Any, tensors: dict[str, torch.Tensor]) -> None:
    """A seal says that a file is as it was written, not that it makes sense."""
    write_tensors(place / "x.safetensors", tensors, {"expunge": json.dumps(about)})
    used(told(lambda: Edit.load("x.safetensors")), world)


# LoRA and weights of other tools

DOWN = ("lora_A.weight", "lora_down.weight", "lora.down.weight", "lora_linear_layer.down.weight")
UP = ("lora_B.weight", "lora_up.weight", "lora.up.weight", "lora_linear_layer.up.weight")


@pytest.fixture(scope="module")
def modules(world: Model) -> list[str]:
    own = [name.removesuffix(".weight") for name in world.parameters() if name.endswith("to_k.weight")]
    compvis = ["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"]
    return [*own[:2], *(named(world, m) for m in own[:2]), *(f"unet.{m}" for m in own[:2]), *compvis, "../../x", ""]


@fuzz
@given(data=st.data())
def test_any_lora(place: Path, world: Model, modules: list[str], data: st.DataObject) -> None:
    """Of diffusers', kohya's and CompVis' names, whole or not, with scales of every kind."""
    draw, tensors = data.draw, dict[str, torch.Tensor]()
    for module in draw(st.lists(st.sampled_from(modules), min_size=1, max_size=2, unique=True)):
        k = draw(st.integers(0, 3))
        rank, out, wide = (draw(st.sampled_from([0, 1, 4, 32, 64, 128])) for _ in range(3))
        fill = draw(st.sampled_from([0.1, float("nan"), float("inf"), 1e38]))
        parts = {
            DOWN[k]: torch.full((rank, wide), fill), UP[k]: torch.ones(out, rank), "alpha": draw(Tensors),
            "weight": torch.full((out, wide), fill), "dora_scale": torch.ones(1),
        }  # fmt: skip
        kept = draw(st.lists(st.sampled_from([*parts]), min_size=1, max_size=4, unique=True))
        tensors |= {f"{module}.{name}": parts[name] for name in kept}
    about = draw(st.sampled_from(["{}", "[" * 5000, "[]", '{"lora_alpha": 1e999}', f'{{"lora_alpha": {10**400}}}']))
    pattern = json.dumps({"unet.lora_alpha": draw(Json), "unet.alpha_pattern": draw(Json)})
    save_file(tensors, place / "x.safetensors", {METADATA: draw(st.sampled_from([about, pattern]))})
    edit = told(lambda: formats.read(Path("x.safetensors"), world))
    used(edit, world)
    for kind in formats.FORMATS if edit else ():
        if kind not in ("diffusers", "compvis"):
            told(lambda kind=kind: formats.FORMATS[kind].write(edit, world, place / "out.safetensors", 1))  # type: ignore[misc]


def test_factors_that_claim_all_memory(place: Path, world: Model, modules: list[str]) -> None:
    tensors = {
        f"{modules[0]}.lora_A.weight": torch.zeros(1, 2**20),
        f"{modules[0]}.lora_B.weight": torch.zeros(2**20, 1),
    }
    save_file(tensors, place / "x.safetensors")
    with pytest.raises(ExpungeError, match="does not fit"):
        formats.read(Path("x.safetensors"), world)


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "x.pt", "x.ckpt", "x.csv", "x.yaml", "x.jsonl", "x.png"])
@pytest.mark.parametrize("zipped", [False, True])
def test_no_pickle_is_executed(place: Path, world: Model, name: str, zipped: bool) -> None:
    """By whatever reads files, under whatever name."""
    path, canary = place / name, Canary(place / "canary")
    torch.save({"a": canary}, path) if zipped else path.write_bytes(pickle.dumps({"a": canary}, protocol=4))
    openers: list[Callable[[], Any]] = [
        lambda: Edit.load(path), lambda: formats.read(path, world), lambda: read(path), lambda: picture.read(path),
        lambda: formats.read(path, world, allow_pickle=True), lambda: load(path), lambda: protocol(str(path)),
        lambda: [*of_file(path)], lambda: concept_set(str(path)), lambda: sweep(str(path)),
    ]  # fmt: skip
    for opener in openers:
        with pytest.raises(ExpungeError):
            opener()


# YAML

RECIPE = {
    "about": "", "method": "esd", "options": {"steps": 3, "betas": [0.9, 0.99], "keep": ["a cat"]},
    "concepts": [{"name": "car", "anchor": "boat"}], "seed": 1,
}  # fmt: skip
ASKED = {
    "about": "x", "source": "y", "images": 1, "steps": 2, "cfg": 2.0,
    "prompts": {"template": "a {x}", "values": {"x": ["cat", "dog"]}}, "judges": {"w": {"kind": "smallworld"}},
    "rates": [{"name": "n", "judge": "w", "key": "object", "equals": "{x}", "by": "x"}],
    "metrics": [{"kind": "fid", "eye": {"kind": "smallworld"}}],
}  # fmt: skip
SWEEP = {
    "concepts": ["car"], "runs": [{"preset": "esd-x", "options": {"steps": 4}, "grid": {"eta": [1, 2]}}],
    "grid": {"seed": [0, 1]}, "snapshots": [2], "guidance": ["negative"], "audit": {"protocol": "smallworld"},
}  # fmt: skip


def consumed(path: str) -> None:
    """A YAML file as all that it could be."""
    recipe = told(lambda: read(Path(path)))
    if recipe:
        told(lambda: build_method(recipe, {}))
    asked: Protocol | None = told(lambda: protocol(path))
    if asked:
        told(lambda: asked.cells(5))
        told(lambda: changed(asked, "x.csv", {"judges.w.kind": 3, "prompts.rows.0": {}}))
    grid = told(lambda: sweep(path))
    if grid:
        told(lambda: [p.file for p in points(grid)])


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@fuzz
@given(text=st.text("ab1-+.:,!?&*#|>'\"%@`[]{}<~ \n\t\0\\\ud800é", max_size=60))
@example(text=BOMB)
@example(text="concepts: &a [*a]")
@example(text="options: " + "{a: " * 400 + "}" * 400)
@example(text="[" * 20_000)
@example(text="seed: " + "9" * 5000)
@example(text="seed: !!int 0x" + "f" * 5000)
@example(text="seed: !!python/object/apply:pathlib.Path.touch [canary]")
@example(text="options: !!set {a, b}\nconcepts: [!!binary aGk=, !!timestamp 2020-01-01]")
@example(text="about: x\nsource: y\nprompts: {rows: [{prompt: !!binary /w==}]}\njudges: {w: !!binary /w==}")
@example(text='about: "\\ud800"\nsource: y\nprompts: {rows: [{prompt: "\\ud800"}]}')
@example(text="{" + ", ".join(f"k{i}: 1" for i in range(3000)) + "}")
def test_any_yaml(place: Path, text: str) -> None:
    (place / "x.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    consumed("x.yaml")


@fuzz
@given(value=st.one_of(spoilt(RECIPE), spoilt(ASKED), spoilt(SWEEP)))
@example(value=ASKED | {"prompts": {"template": "{a}{b}{c}{d}{e}", "values": {k: ["x"] * 99 for k in "abcde"}}})
@example(value=ASKED | {"images": 10**9})
@example(value=ASKED | {"prompts": {"template": "{x:>99999999999}", "values": {"x": ["cat"]}}})
@example(value=ASKED | {"prompts": {"file": "a\0b.csv"}})
@example(value=ASKED | {"prompts": {"file": "~nobody-of-that-name/x.csv"}})
@example(value=ASKED | {"prompts": {"file": "a" * 300 + ".csv"}})
def test_any_recipe_protocol_and_sweep(place: Path, value: Any) -> None:
    (place / "x.yaml").write_text(json.dumps(value))
    consumed("x.yaml")


# tables of prompts

Cells = st.sampled_from(["a cat", "1", "1.5", "-1", "nan", "1e999", "9" * 30, "９", "x\0y", '"', "", "\n", "a,b", "é"])
HEADS = ["prompt", "caption", "seed", "evaluation_seed", "cfg", "guidance", "x", "", "prompt"]


@fuzz
@given(suffix=st.sampled_from([*READERS]), data=st.binary(max_size=60))
@example(suffix=".csv", data=b"prompt\n" + b"x" * 200_000)
@example(suffix=".csv", data="prompt,seed\ncafé,1".encode("utf-16"))
@example(suffix=".csv", data=b"prompt,seed\ncaf\xe9,1")
@example(suffix=".jsonl", data=b'{"prompt": ' + b"[" * 100_000)
@example(suffix=".jsonl", data=b'{"prompt": "\\ud800"}')
@example(suffix=".jsonl", data=b'{"prompt": "a", "seed": 1e999}')
@example(suffix=".jsonl", data=b'{"prompt": "a", "cfg": ' + b"9" * 400 + b"}")
def test_any_bytes_as_prompts(place: Path, suffix: str, data: bytes) -> None:
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        return
    (place / f"x{suffix}").write_bytes(data)
    told(lambda: [*of_file(Path(f"x{suffix}"))])


@fuzz
@given(
    heads=st.lists(st.sampled_from(HEADS), max_size=4),
    rows=st.lists(st.lists(Cells, max_size=5), max_size=3),
    objects=st.lists(st.dictionaries(st.sampled_from(HEADS), Json, max_size=4), max_size=3),
)
def test_any_table(place: Path, heads: list[str], rows: list[list[str]], objects: list[Any]) -> None:
    """What is read is a text, a seed that torch takes, and a finite scale."""
    (place / "x.csv").write_text("\n".join(",".join(row) for row in [heads, *rows]))
    (place / "x.tsv").write_text("\n".join("\t".join(row) for row in [heads, *rows]))
    (place / "x.jsonl").write_text("\n".join(map(json.dumps, objects)))
    for name in ("x.csv", "x.tsv", "x.jsonl"):
        for row in told(lambda name=name: [*of_file(Path(name))]) or ():  # type: ignore[misc]
            assert row.prompt.encode() and 0 <= row.seed < 2**63
            assert row.cfg is None or abs(row.cfg) < float("inf")
            torch.Generator().manual_seed(row.seed)


def test_any_parquet(place: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"prompt": ["a cat"], "seed": [1]}), place / "x.parquet")
    data = (place / "x.parquet").read_bytes()
    for i in range(0, len(data), 7):
        (place / "x.parquet").write_bytes(data[:i] + bytes([data[i] ^ 16]) + data[i + 1 :])
        told(lambda: [*of_file(Path("x.parquet"))])


# texts of the command line

Words = st.sampled_from([*PRESETS, *INSTRUMENTS, "imagenette", "esd-x", "key", "above", "equals"])
Glue = st.sampled_from([",", "=", " = ", " + ", ":", "[", "]", "{", "}", "->", "/", ".", "0.5", "1e999"])
Phrases = [text for text in NASTY if isinstance(text, str)]
Sayable = [text for text in Phrases if text.isascii() or text.isprintable()]
Parts = Words | Glue | st.text(max_size=4) | st.sampled_from([*Sayable, ".safetensors"])
Texts = st.lists(Parts, max_size=6).map("".join)


@fuzz
@given(text=Texts)
@example(text="1/" + "9" * 5000)
@example(text="²/3")
@example(text="a\0b.safetensors:0.5")
@example(text="~nobody-of-that-name/x.safetensors")
@example(text="clip,labels=[a,b],model=~nobody-of-that-name/x")
def test_any_argument(place: Path, text: str) -> None:
    parsers: Sequence[Callable[[], Any]] = (
        lambda: assignments([text]), lambda: called(text, "--x"), lambda: scaled(text), lambda: sharded(text),
        lambda: filtering(text), lambda: guidance(text, ["car"]), lambda: combined(text, ["car"]),
        lambda: of_edit(text), lambda: concepts_of([text], text), lambda: concept_set(text), lambda: filled(text, text),
        lambda: protocol(text), lambda: sweep(text), lambda: home(text), lambda: home(f"{text}.yaml"),
        lambda: changed(protocol("imagenette"), None, assignments([text])),
    )  # fmt: skip
    assert place.is_dir()
    for parser in parsers:
        told(parser)


@pytest.mark.parametrize(
    "model", [v for v in NASTY if isinstance(v, str)] + ["~nobody-of-that-name", "a" * 300 + ".ckpt"]
)
def test_any_model_name(model: str) -> None:
    with pytest.raises(ExpungeError):
        load(model, device="cpu")


@fuzz
@given(
    prompt=st.text(max_size=80) | st.sampled_from(["../../x", "/etc/passwd", "", "\0"]), seed=st.integers(0, 2**63 - 1)
)
@example(prompt="../../../etc/passwd", seed=0)
def test_pictures_and_edits_stay_in_their_folder(world: Model, prompt: str, seed: int) -> None:
    """Names are letters, digits and dashes, whatever is asked for."""
    name = file_name(world, [], Request(prompt, seed), Settings())
    point = Point("esd", {"concepts": prompt}, None, (), 0)  # type: ignore[arg-type]
    for file in (name, point.file):
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", file)
        assert len(file) < 200


# audits

SCORE = rate(3, 4, metric="accuracy", subject="car", model="base", higher_is_better=True)
GONE = rate(1, 4, metric="accuracy", subject="erased", model="x", higher_is_better=False)
CHANGE = Change(value=-0.5, low=-0.9, high=-0.1, p=0.1, n=4)
AUDIT: dict[str, Any] = {
    "protocol": {"name": "p", "rates": []}, "model": {"hash": "0"}, "settings": {"steps": 2, "cfg": 2.0}, "judges": {},
    "metrics": [], "requests": "0", "pictures": 4,
    "rows": [{"name": "base", "erased": ["car"], "edits": []},
             {"name": "x", "erased": ["car"], "edits": [{"cost": {"seconds": 1.0}}]}],
    "scores": [Result(SCORE, None, "erased", (1.0, 0.0, 1.0, 1.0)).row(), Result(GONE, CHANGE, "erased").row()],
}  # fmt: skip


@fuzz
@given(about=spoilt(AUDIT), kept=st.booleans())
@example(about=AUDIT | {"scores": [{**asdict(SCORE), "n": 0, "role": "erased", "change": asdict(CHANGE)}]}, kept=True)
@example(about=AUDIT, kept=True)
def test_any_scores(place: Path, about: Any, kept: bool) -> None:
    folder = place / "audit"
    folder.mkdir(exist_ok=True)
    text = json.dumps(sealed(about) if kept and isinstance(about, dict) else about)
    (folder / "scores.json").write_text(text)
    found = told(lambda: comparison([folder]))
    if found:
        found.table(), found.between(), found.pareto()


@fuzz
@given(lines=st.lists(st.binary(max_size=20) | Json.map(lambda v: json.dumps(v).encode()), max_size=4))
def test_any_line_of_a_store_counts_as_none(place: Path, lines: list[bytes]) -> None:
    store = Store(place / "x.jsonl")
    store.path.write_bytes(b"\n".join(lines))
    assert store.read() == {}
    store.add(["a"], [{"b": 1.5}])
    assert store.read() == {"a": {"b": 1.5}}


def test_the_guards_themselves(place: Path) -> None:
    """What they bar is seen, and a text that is none comes no further than the command line."""
    with pytest.raises(pytest.fail.Exception, match="network"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)
    canary = Canary(place / "seen")
    pickle.loads(pickle.dumps(canary))
    assert (place / "seen").exists()
    with pytest.raises(ExpungeError, match="is not UTF-8"):
        readable(["generate", "a \udcff cat"])
