"""A run that was stopped ends in the same bits as one left alone; `faults` kills it."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import TinyModel
from expunge.concept import Concept
from expunge.errors import ExpungeError
from expunge.files import read_tensors, write_tensors
from expunge.method import Method
from expunge.methods import METHODS
from expunge.methods.esd import ESD
from expunge.model import Model
from expunge.training import Snapshots, Trainer
from runner import Runner

POOL = shlex.split(
    "erase car --set steps=60 --set trajectory=pool --set grid=6 --set batch=2 --set lr=1e-3 --precision fp32"
    """ --set 'contexts=["red [{}]"]' --set 'keep=[a truck, a cat]' --set keep_batch=2"""
)


STATEFUL: dict[str, tuple[str, dict[str, object]]] = {
    "pool of a student": ("esd", {"trajectory": "pool", "sampler": "student"}),
    "fixed captions": ("esd", {"trajectory": "pool", "sampler": "student", "empty": "frozen", "fixed": ("", "a boat")}),
    "pool of an average": ("sdd", {"trajectory": "pool", "sampler": "average", "ema": 0.9}),
    "pool of a student, distilled": ("sdd", {"trajectory": "pool", "sampler": "student"}),
    "shared pictures": ("ablation", {"regularise": 1.0, "images": 4, "prompts": ("a cat [by {}]", "a boat [by {}]")}),
    "attention": ("forget-me-not", {"images": 4, "keep": ("a boat", "a cat")}),
    "LoRA": ("esd", {"trajectory": "renoised", "latents": 4, "lora_rank": 2, "keep_gaussian": 2}),
    "with another beside it": (
        "esd",
        {"latents": 4, "beside": ("other.safetensors", "other.safetensors:0.5", "other.safetensors:-1")},
    ),
    "rows of a text encoder": ("esd", {"trajectory": "renoised", "latents": 4, "scope": "kv-text"}),
}


def stopped(method: Method, model: Model, snapshot: Path, concepts: Sequence[Concept]) -> None:
    """A run that ends in its fourth step, with what it keeps after three."""

    def stop(trainer: Trainer, _: float) -> None:
        if trainer.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.fit(model, concepts, snapshot=snapshot, on_step=stop)


@pytest.mark.parametrize("case", STATEFUL)
def test_every_kind_of_state_goes_on(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Stopped after three steps of six, and gone on with from what was on the disk."""
    kind, options = STATEFUL[case]
    method = METHODS[kind](**{"steps": 6, "grid": 3, "batch": 2, "lr": 1e-3} | options)  # type: ignore[arg-type]
    concepts, snapshot = [Concept(name="Marlow")], tmp_path / "snapshot"
    monkeypatch.setattr(Snapshots, "due", lambda _: True)
    monkeypatch.chdir(tmp_path)
    METHODS["esd"](steps=1, grid=2, lr=1e-2, latents=2).fit(tiny(), concepts).save("other.safetensors")  # type: ignore[call-arg]

    whole = method.fit(tiny(), concepts)
    stopped(method, tiny(), snapshot, concepts)
    seen: list[int] = []
    resumed = method.fit(tiny(), concepts, snapshot=snapshot, on_step=lambda trainer, _: seen.append(trainer.step))
    assert seen == [4, 5, 6]
    assert resumed.hash == whole.hash


def test_a_snapshot_of_another_version_is_told(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that one kept less."""
    method, concepts, snapshot = ESD(steps=6, grid=2, latents=2), [Concept(name="car")], tmp_path / "snapshot"
    monkeypatch.setattr(Snapshots, "due", lambda _: True)
    stopped(method, tiny(), snapshot, concepts)
    tensors, about = read_tensors(snapshot)
    least = next(name for name in tensors if name.startswith("parameter/"))
    write_tensors(snapshot, {name: x for name, x in tensors.items() if name != least}, about)
    with pytest.raises(ExpungeError, match="another version of expunge began that run; remove it"):
        method.fit(tiny(), concepts, snapshot=snapshot)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_finish_the_step_save_and_say_so(runner: Runner, tmp_path: Path, number: int, code: int) -> None:
    out, told = tmp_path / "edit.safetensors", tmp_path / "told.txt"
    command = [*POOL, "--set", "steps=2000", "--out", str(out)]
    assert runner.ended(command, told, number, out.with_name("edit.safetensors.snapshot").exists) == code
    assert "resume" in told.read_text().splitlines()[-1]
    assert "Traceback" not in told.read_text()
    assert not out.exists()
