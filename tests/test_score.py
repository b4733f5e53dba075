"""Intervals against scipy, and the algebra of rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipys

from expunge.score import bootstrap, mcnemar, mean, paired, pooled, rate, share, shifted, wilson


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(case: tuple[int, int]) -> None:
    k, n = case
    want = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((want.low, want.high), abs=1e-12)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_value(case: tuple[int, int]) -> None:
    score = rate(*case, metric="m", subject="s", model="base", higher_is_better=True)
    assert 0 <= score.low <= score.value <= score.high <= 1


@pytest.mark.parametrize("case", [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts(case: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="a rate needs"):
        wilson(*case)


@given(st.lists(st.integers(1, 50).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1))
def test_pooled_rates_are_the_rate_of_the_pool(cases: list[tuple[int, int]]) -> None:
    about = {"metric": "m", "subject": "s", "model": "base", "higher_is_better": False}
    whole = rate(sum(k for k, _ in cases), sum(n for _, n in cases), **about)
    assert pooled([rate(k, n, **about) for k, n in cases], metric="m", subject="s") == whole


ABOUT = {"metric": "m", "subject": "s", "model": "base", "higher_is_better": True}


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_shares_of_whole_pictures_are_a_rate(hits: list[bool]) -> None:
    found, want = share([float(h) for h in hits], len(hits), **ABOUT), rate(sum(hits), len(hits), **ABOUT)
    assert (found.value, found.low, found.high) == pytest.approx((want.value, want.low, want.high))
    assert found.n == want.n


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=200))
def test_shares_are_surer_than_hits_but_not_than_all_judgements(values: list[float]) -> None:
    """Between the intervals of as many whole pictures, and of as many pictures as there were judgements."""
    n, found = len(values), share(values, 4 * len(values), **ABOUT)
    wide, narrow = (wilson(found.value * m, m) for m in (n, 4 * n))
    assert wide[0] - 1e-9 <= found.low <= narrow[0] + 1e-9 <= found.value + 2e-9
    assert found.value - 2e-9 <= narrow[1] - 1e-9 <= found.high <= wide[1] + 1e-9


@pytest.mark.parametrize("n", [6, 12, 80])
def test_the_interval_of_shares_covers(n: int) -> None:
    """Pictures with four judged attributes each, a third of them bad altogether: 95% of intervals hold the truth."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):
        chance = np.where(rng.random(n) < 1 / 3, 0.4, 0.95)
        found = share((rng.binomial(4, chance) / 4).tolist(), 4 * n, **ABOUT)
        held += found.low <= 0.4 / 3 + 0.95 * 2 / 3 <= found.high
    assert 920 <= held <= 990


@pytest.mark.parametrize("n", [5, 20, 100])
def test_shares_that_did_not_change_are_seldom_called_changed(n: int) -> None:
    rng, real = np.random.default_rng(1), 0
    for _ in range(1000):
        chance = rng.choice([0.3, 0.6, 1.0], size=n)
        found = shifted(*((rng.binomial(4, chance) / 4).tolist() for _ in range(2)))
        real += found.real
        assert -1 <= found.low <= found.value <= found.high <= 1 and 0 < found.p <= 1
    assert real <= 60


def test_a_change_of_shares_is_found() -> None:
    rng = np.random.default_rng(2)
    found = shifted((rng.binomial(4, 0.9, 60) / 4).tolist(), (rng.binomial(4, 0.6, 60) / 4).tolist())
    assert found.real and found.high < 0 and found.p < 0.01 and found.value == pytest.approx(-0.3, abs=0.1)


def test_nothing_to_pool() -> None:
    with pytest.raises(ValueError, match="nothing to pool"):
        pooled([], metric="m", subject="s")


pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


@given(pairs)
def test_mcnemar_is_scipys_sign_test(rows: list[tuple[bool, bool]]) -> None:
    before, after = (list(column) for column in zip(*rows, strict=True))
    found = mcnemar(before, after)
    lost, won = sum(b and not a for b, a in rows), sum(a and not b for b, a in rows)
    assert found.value == pytest.approx(np.mean(after) - np.mean(before))
    assert found.p == pytest.approx(binomtest(lost, lost + won).pvalue if lost + won else 1)
    assert -1 <= found.low <= found.high <= 1


@given(pairs)
def test_pairs_the_other_way_are_the_other_way(rows: list[tuple[bool, bool]]) -> None:
    before, after = (list(column) for column in zip(*rows, strict=True))
    there, back = mcnemar(before, after), mcnemar(after, before)
    assert (there.value, there.low, there.high, there.p) == pytest.approx((-back.value, -back.high, -back.low, back.p))


def test_agresti_and_mins_interval_covers() -> None:
    """Of 1000 draws with a true difference of −0.2, about 95% hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        kind = rng.choice(4, size=60, p=[0.5, 0.25, 0.05, 0.2])  # both, lost, won, neither
        found = mcnemar([k in (0, 1) for k in kind], [k in (0, 2) for k in kind])
        held += found.low <= -0.2 <= found.high
    assert 930 <= held <= 980


def test_the_bootstrap_is_scipys() -> None:
    values = np.random.default_rng(1).exponential(size=80)
    found = mean(values.tolist(), metric="m", subject="s", model="base", higher_is_better=True)
    theirs = scipys((values,), np.mean, method="percentile", rng=np.random.default_rng(2)).confidence_interval
    width = theirs.high - theirs.low
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.15 * width)


def test_a_biased_statistic_keeps_its_value_inside() -> None:
    """The smallest gap between rows is 0 on every resample, yet the interval is around the value."""
    values = np.random.default_rng(1).normal(size=40)
    value, low, high = bootstrap(40, lambda i: float(np.abs(np.diff(np.sort(values[i]))).min()), rounds=50)
    assert low <= value <= high


def test_a_paired_difference_is_sharper_than_two_means() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(0, 5, size=100)
    found = paired(before.tolist(), (before + 0.5 + rng.normal(0, 0.1, size=100)).tolist())
    assert found.real and found.p < 0.05 and found.value == pytest.approx(0.5, abs=0.05)
    assert found.high - found.low < 0.1
    assert not paired(before.tolist(), before.tolist()).real


def test_pairs_need_partners() -> None:
    with pytest.raises(ValueError, match="as many before"):
        mcnemar([True], [True, False])
    with pytest.raises(ValueError, match="nothing to resample"):
        mean([], metric="m", subject="s", model="base", higher_is_better=True)
