"""The loop's promises: exact resume, EMA, schedules, guards, signals."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from expunge.errors import ExpungeError
from expunge.rng import torch_rng
from expunge.signals import stop_signals
from expunge.training import Loss, Snapshots, Trainer, Training, train


class Drift:
    """Extra state that every step reads and changes."""

    def __init__(self) -> None:
        self.value = torch.zeros(3)

    def state(self) -> dict[str, Tensor]:
        return {"value": self.value}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.value = state["value"].clone()


def make(options: Training) -> tuple[Trainer, Drift]:
    drift = Drift()
    return Trainer(
        {"w": torch.ones(3, requires_grad=True), "v": torch.zeros(2, 2, requires_grad=True)}, options, drift
    ), drift


def loss_of(trainer: Trainer, drift: Drift) -> Loss:
    def loss(step: int) -> Iterator[dict[str, Tensor]]:
        drift.value = drift.value + torch.randn(3, generator=torch_rng(0, "drift", step=step))
        w, v = trainer.parameters["w"], trainer.parameters["v"]
        yield {"a": ((w - drift.value) ** 2).mean(), "b": (v - 1).square().sum()}

    return loss


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_resume_ends_in_the_same_bits(tmp_path: Path, stop: int, optimiser: str) -> None:
    values = {"steps": 6, "lr": 0.1, "schedule": "cosine", "warmup": 2, "ema": 0.9, "clip": 1.0, "weight_decay": 0.1}
    options = Training(optimiser=optimiser, **values)  # type: ignore[arg-type]
    whole, drift = make(options)
    want = train(whole, loss_of(whole, drift))
    first, drift = make(options)
    for step in range(stop):
        first.advance(loss_of(first, drift)(step))
    keeper = Snapshots(tmp_path / "s", "run")
    keeper.save(first)
    second, drift = make(options)
    keeper.load(second)
    got = train(second, loss_of(second, drift))
    assert second.step == 6
    assert all(torch.equal(got[k], want[k]) for k in want)


def test_snapshot_of_another_run_is_refused(tmp_path: Path) -> None:
    trainer, _ = make(Training(steps=2, lr=0.1))
    Snapshots(tmp_path / "s", "one").save(trainer)
    with pytest.raises(ExpungeError, match="another run"):
        Snapshots(tmp_path / "s", "two").load(trainer)


def test_not_finite_stops_and_names_step_and_term() -> None:
    trainer, _ = make(Training(steps=5, lr=0.1))

    def loss(step: int) -> Iterator[dict[str, Tensor]]:
        w = trainer.parameters["w"].sum()
        yield {"good": w, "bad": w * (math.nan if step == 3 else 1)}

    with pytest.raises(ExpungeError, match="'bad' is not finite at step 3"):
        train(trainer, loss)
    assert torch.isfinite(trainer.parameters["w"]).all()


def test_ema_of_a_constant_is_the_constant_and_it_lags() -> None:
    trainer, _ = make(Training(steps=50, lr=0.1, ema=0.9))
    result = train(
        trainer, lambda _: [{"a": (trainer.parameters["w"] - 3).square().sum() + 0 * trainer.parameters["v"].sum()}]
    )
    assert torch.equal(result["v"], torch.zeros(2, 2))
    assert (result["w"] - trainer.parameters["w"]).abs().max() > 0


def test_schedules() -> None:
    cosine = Training(steps=100, lr=1.0, schedule="cosine", warmup=10)
    rates = [cosine.rate(i) for i in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001
    assert abs(rates[55] - 0.5) < 1e-9
    assert {Training(lr=0.3, steps=9).rate(i) for i in range(9)} == {0.3}


def test_clip_bounds_the_step() -> None:
    options = Training(steps=1, lr=1.0, clip=1e-3)
    trainer, _ = make(options)
    trainer.advance([{"a": 1e6 * trainer.parameters["w"].sum() + 0 * trainer.parameters["v"].sum()}])
    moment = trainer.optimiser.state[trainer.parameters["w"]]["exp_avg"]  # (1 − β₁) g after the first step
    assert 0.999e-4 <= moment.norm() <= 1.001e-4
    assert trainer.parameters["w"].grad is None, "gradients are let go before the next forward pass"


def test_an_infinite_gradient_never_reaches_the_parameters() -> None:
    """The loss is finite, its derivative is not: sqrt at 0."""
    trainer, _ = make(Training(steps=1, lr=0.1))
    with pytest.raises(ExpungeError, match="gradient is not finite at step 0"):
        trainer.advance([{"a": trainer.parameters["v"].sum().sqrt() + 0 * trainer.parameters["w"].sum()}])
    assert torch.isfinite(trainer.parameters["v"]).all()


def test_a_flipped_bit_in_a_snapshot_is_noticed(tmp_path: Path) -> None:
    trainer, _ = make(Training(steps=2, lr=0.1))
    keeper = Snapshots(tmp_path / "s", "run")
    keeper.save(trainer)
    data = bytearray((tmp_path / "s").read_bytes())
    data[-1] ^= 1
    (tmp_path / "s").write_bytes(bytes(data))
    with pytest.raises(ExpungeError, match="damaged"):
        keeper.load(trainer)


def test_a_second_signal_acts_as_usual() -> None:
    """One is noted, the next one ends the run at once; afterwards everything is as before."""
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as received:
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
