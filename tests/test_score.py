"""Intervals against scipy, and the algebra of rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipys

from expunge.score import bootstrap, mcnemar, mean, paired, pooled, rate, share, wilson


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


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_shares_of_whole_pictures_are_a_rate(hits: list[bool]) -> None:
    about = {"metric": "m", "subject": "s", "model": "base", "higher_is_better": True}
    found, want = share([float(h) for h in hits], **about), rate(sum(hits), len(hits), **about)
    assert (found.value, found.low, found.high) == pytest.approx(
        (want.value, want.low, want.high)
    ) and found.n == want.n


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2, max_size=200))
def test_shares_are_surer_than_hits_and_never_surer_than_their_spread_allows(values: list[float]) -> None:
    """Between the interval of as many whole hits and misses, and none at all."""
    about = {"metric": "m", "subject": "s", "model": "base", "higher_is_better": True}
    found = share(values, **about)
    low, high = wilson(found.value * len(values), len(values))
    assert low - 1e-9 <= found.low <= found.value <= found.high <= high + 1e-9


def test_the_interval_of_shares_covers() -> None:
    """Pictures with four judged attributes each, a third of them bad altogether: 95% of intervals hold the truth."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):
        chance = np.where(rng.random(80) < 1 / 3, 0.4, 0.95)
        values = rng.binomial(4, chance) / 4
        found = share(values.tolist(), metric="m", subject="s", model="base", higher_is_better=True)
        held += found.low <= 0.4 / 3 + 0.95 * 2 / 3 <= found.high
    assert 930 <= held <= 980


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
