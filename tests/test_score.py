"""Intervals against scipy, and the algebra of rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from expunge.score import pooled, rate, wilson


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


def test_nothing_to_pool() -> None:
    with pytest.raises(ValueError, match="nothing to pool"):
        pooled([], metric="m", subject="s")
