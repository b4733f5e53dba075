"""Memory: where it runs out a batch goes in pieces, and nothing of it leaks."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import together
from conftest import TinyModel
from expunge.concept import Concept
from expunge.erasure import run
from expunge.generation import Request, Settings, generate
from expunge.methods.esd import ESD
from expunge.model import Model
from expunge.picture import opened
from expunge.team import ALONE
from expunge.training import Snapshots, Trainer

FREED = """
import resource, sys
from expunge.heap import keep_freed
if sys.argv[1:]:
    keep_freed()
for _ in range(20):
    blocks = [b"x" * 2**22 for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
"""Pages that are asked for where 32 MiB are freed twenty times."""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs mallopt")
def test_freed_memory_is_kept_unless_the_environment_says_otherwise() -> None:
    def pages(*arguments: str, **more: str) -> int:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        command = [sys.executable, "-c", FREED, *arguments]
        return int(subprocess.run(command, env=env | more, capture_output=True, check=True).stdout)

    kept, given_back, left_alone = pages("keep"), pages(), pages("keep", MALLOC_ARENA_MAX="8")
    assert 4 * kept < given_back and given_back - left_alone < kept


class Small:
    """A device on which calls of the network with more than `most` rows find no memory, once they learn."""

    def __init__(self, model: Model, most: int) -> None:
        self.most, self.refused = most, 0
        model.denoiser.register_forward_pre_hook(self.look, with_kwargs=True)

    def look(self, _: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        x = args[0] if args else given.get("sample", given.get("hidden_states"))
        if len(x) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")


@pytest.mark.parametrize("case", [c for c in together.CASES if "divided" not in c and "fresh" not in c])
def test_pieces_learn_what_the_batch_learns(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The effective batch is kept: the gradients are the whole batch's, and it is said aloud."""
    want, opened = together.learnt(case), together.opened
    small: list[Small] = []

    def confined(*arguments: Any) -> Model:
        model = opened(*arguments)
        small.append(Small(model, 2))
        return model

    monkeypatch.setattr(together, "opened", confined)
    got = together.learnt(case, ALONE)
    assert small[0].refused
    assert "out of memory: from now on" in capsys.readouterr().err
    scale = max(float(v.abs().max()) for k, v in want.items() if k != "loss")
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=2e-3, atol=1e-3 * scale if name != "loss" else 1e-6)


def test_where_one_row_finds_no_memory_the_run_ends(tiny: TinyModel) -> None:
    model = tiny()
    Small(model, 0)
    with pytest.raises(torch.OutOfMemoryError):
        ESD(steps=2, grid=3, batch=4).fit(model, [Concept(name="car")])


def test_a_resumed_run_goes_on_in_pieces(tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Snapshots, "due", lambda _: True)
    method, car = ESD(steps=4, grid=3, batch=4, trajectory="pool", lr=1e-3), [Concept(name="car")]

    def stop(trainer: Trainer, _: float) -> None:
        if trainer.step == 3:
            raise KeyboardInterrupt

    whole, first, second = tiny(), tiny(), tiny()
    refusals = [Small(model, 2) for model in (whole, first, second)]
    want = method.fit(whole, car)
    with pytest.raises(KeyboardInterrupt):
        method.fit(first, car, snapshot=tmp_path / "s", on_step=stop)
    assert method.fit(second, car, snapshot=tmp_path / "s").hash == want.hash
    assert refusals[1].refused == 2
    assert refusals[2].refused == 0, "it knew"


def test_four_hundred_steps_hold_what_a_hundred_do(tiny: TinyModel, tmp_path: Path) -> None:
    """Resident memory, with log and snapshots; `benchmarks/leak.py` looks at the small world."""
    method, held = ESD(steps=400, grid=4, trajectory="pool", scope="xattn-strict"), dict[int, int]()

    def look(trainer: Trainer, _: float) -> None:
        if trainer.step in (100, 400):
            held[trainer.step] = int(Path("/proc/self/statm").read_text().split()[1])

    run(tiny(), method, [Concept(name="car")], tmp_path / "car.safetensors", on_step=look)
    assert held[400] <= 1.02 * held[100]


def test_pictures_come_in_pieces_where_memory_is_short(
    tiny: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same files, as near as sums in another order allow."""
    requests, settings = [Request("a cat", seed) for seed in range(6)], Settings(steps=3)
    model, small = tiny(), tiny()
    confined = Small(small, 3)
    names = [
        [row["file"] for row in generate(m, requests, settings, tmp_path / name)]
        for m, name in ((model, "whole"), (small, "pieces"))
    ]
    assert names[0] == names[1]
    assert confined.refused
    assert "out of memory" in capsys.readouterr().err
    for name in names[0]:
        whole, pieces = (opened(tmp_path / folder / name) for folder in ("whole", "pieces"))
        assert (whole - pieces).abs().max() <= 2.01 / 127.5
