from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from common.stats.covariance import Estimate
from common.stats.covariance import estimate as estimate_of
from common.stats.design import Design, memberships
from common.stats.intervals import critical, draws, first_from, gain_interval, holm, interval, p_clustered, p_mcnemar


def estimate(values: np.ndarray, clusters: dict) -> Estimate:
    return estimate_of(values, Design(clusters))


def left_out(values: np.ndarray, key: Callable[[int], set]) -> float:
    """Return the delete-one-cluster jackknife variance of a mean, in as many words."""
    clusters = sorted(set().union(*(key(i) for i in range(len(values)))))
    means = [np.mean([v for i, v in enumerate(values) if c not in key(i)]) for c in clusters]
    return (len(clusters) - 1) / len(clusters) * sum((m - values.mean()) ** 2 for m in means)


@pytest.mark.parametrize("roles", [2, 3])
def test_the_variance_of_pairs_that_share_texts_is_unbiased(roles: int) -> None:
    """A text is in some pairs as recipient, in others as donor, in a few as both."""
    rng = np.random.default_rng(0)
    texts, n = 12, 200
    of_roles = rng.integers(texts, size=(roles, n))
    weights = np.stack([(of_roles == t).sum(axis=0) for t in range(texts)])  # [text, pair]
    values = weights.T @ rng.normal(size=(texts, 4000)) + rng.normal(size=(n, 4000))
    of = estimate(values[:, :, None], {"texts": memberships(*of_roles)})
    truth = float((weights.mean(axis=1) ** 2).sum()) + 1 / n
    assert (of.se**2).mean() == pytest.approx(truth, rel=0.08)


def test_texts_crossed_with_speakers() -> None:
    rng = np.random.default_rng(1)
    t, s = np.indices((9, 6)).reshape(2, -1)
    values = rng.normal(size=9)[t] + rng.normal(size=6)[s] + 0.3 * rng.normal(size=54)
    of = estimate(values[:, None, None], {"texts": memberships(t), "speakers": memberships(s)})
    texts, speakers, cells = (left_out(values, key) for key in (lambda i: {t[i]}, lambda i: {s[i]}, lambda i: {(t[i], s[i])}))
    c = 1 / (1 - 1 / 9 - 1 / 6)
    assert of.se[0, 0] ** 2 == pytest.approx((1 + c / 6) * texts + (1 + c / 9) * speakers - c * cells)
    assert of.clusters == "texts and speakers" and of.levels == pytest.approx(6)


def test_the_variance_of_a_crossed_mean_is_unbiased() -> None:
    rng = np.random.default_rng(2)
    t, s = np.indices((8, 6)).reshape(2, -1)
    values = rng.normal(size=(8, 4000))[t] + 0.8 * rng.normal(size=(6, 4000))[s] + rng.normal(size=(48, 4000))
    of = estimate(values[:, :, None], {"texts": memberships(t), "speakers": memberships(s)})
    assert (of.se**2).mean() == pytest.approx(1 / 8 + 0.64 / 6 + 1 / 48, rel=0.05)


def test_clips_that_share_their_text_say_less() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=(20, 1, 1)), 10, axis=0)  # ten equal clips of each text
    shared, own = (estimate(values, {"texts": memberships(k)}) for k in (np.repeat(np.arange(20), 10), np.arange(200)))
    assert shared.se[0, 0] > 3 * own.se[0, 0] and (shared.df[0], own.df[0]) == (19, 199)


@pytest.mark.parametrize(
    ("texts", "speakers", "clusters"),
    [
        (20, 2, "texts"),
        (20, 4, "texts"),
        (20, 5, "texts and speakers"),
        (2, 24, "speakers"),
        (3, 2, "texts"),
        (2, 4, "speakers"),
        (1, 1, "none: no two texts or speakers to tell apart"),
    ],
)
def test_few_speakers_or_texts_are_held_fixed_and_the_estimate_says_so(texts: int, speakers: int, clusters: str) -> None:
    t, s = np.indices((texts, speakers)).reshape(2, -1)
    values = np.random.default_rng(0).normal(size=(len(t), 1, 2))
    of = estimate(values, {"texts": memberships(t), "speakers": memberships(s)})
    assert of.clusters == clusters and np.isnan(of.se).all() == clusters.startswith("none")
    usual, _ = critical(of, seed=0)
    if clusters != "none: no two texts or speakers to tell apart":
        assert usual[0] > 3 if max(texts, speakers) < 5 else usual[0] < 3  # of three texts the interval is very wide


def test_shares_stay_within_0_and_1_and_agreement_is_no_certainty() -> None:
    flips = np.zeros((200, 1, 4))
    flips[:3, 0, 1] = 1
    flips[:100, 0, 2] = 1
    flips[:, 0, 3] = 1
    of = estimate(flips, {"texts": memberships(np.repeat(np.arange(50), 4))})
    reach, _ = critical(of, seed=0)
    low, high = interval(of, reach, share=np.array([True]), counted=np.full((1, 4), 200.0))
    assert (low >= 0).all() and (high <= 1).all() and (low < of.mean)[0, 1:].all() and (high > of.mean)[0, :3].all()
    effect = np.median([200 * of.se[0, i] ** 2 / (p * (1 - p)) for i, p in ((1, 0.015), (2, 0.5))])  # of the design
    assert high[0, 0] == pytest.approx(reach[0] ** 2 / (200 / effect + reach[0] ** 2)) and low[0, 3] == pytest.approx(
        1 - high[0, 0]
    )
    alone = estimate(flips[:, :, :1], {"texts": memberships(np.repeat(np.arange(50), 4))})
    _, high = interval(alone, reach, share=np.array([True]), counted=np.full((1, 1), 200.0))
    assert high[0, 0] == pytest.approx(reach[0] ** 2 / (50 + reach[0] ** 2))  # as if each text were one observation


def test_wilson_by_hand() -> None:
    """40 of 100 independent clips: the interval of Wilson, as published, but for t in place of the normal quantile."""
    values = np.repeat([1.0, 0.0], [40, 60])[:, None, None]
    of = estimate(values, {"texts": memberships(np.arange(100))})
    low, high = interval(of, np.array([1.96]), share=np.array([True]), counted=np.array([[100.0]]))
    assert (low[0, 0], high[0, 0]) == pytest.approx((0.3094, 0.4980), abs=6e-4)


def test_the_band_is_as_wide_as_the_layers_are_different() -> None:
    rng = np.random.default_rng(3)
    same = np.repeat(rng.normal(size=(400, 1, 1)), 10, axis=2)
    other = rng.normal(size=(400, 1, 10))
    reaches = [critical(estimate(v, {"texts": memberships(np.arange(400))}), seed=0) for v in (same, other)]
    assert reaches[0][1][0] == pytest.approx(reaches[0][0][0], abs=0.08)
    assert reaches[1][1][0] == pytest.approx(stats.norm.isf((1 - 0.95 ** (1 / 10)) / 2), abs=0.08)  # ten independent layers


def test_draws_are_correlated_as_the_means_are() -> None:
    rng = np.random.default_rng(4)
    values = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=500)[:, None, :]
    of = estimate(values, {"texts": memberships(np.arange(500))})
    drawn = draws(of, 0, seed=0)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(of.correlation[0, 0, 1], abs=0.03) and abs(drawn.std() - 1) < 0.02
    assert np.array_equal(drawn, draws(of, 0, seed=0)) and not np.array_equal(drawn, draws(of, 0, seed=1))


def test_first_from() -> None:
    holds = np.array([[0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], dtype=bool)
    assert first_from(holds).tolist() == [3, 0, 5]


def test_tests_by_hand() -> None:
    assert p_mcnemar(np.array([6, 1, 4, 0]), np.array([0, 7, 4, 0])).tolist() == pytest.approx([2 / 64, 18 / 256, 1, 1])
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm(np.array([0.01, np.nan]))).all()
    gain = np.array([1.0, 1, 0, 0, 1, -1, 1, 1])[:, None, None]
    of = estimate(gain, {"texts": memberships(np.arange(8))})
    assert p_clustered(of)[0, 0] == pytest.approx(stats.ttest_1samp(gain[:, 0, 0], 0).pvalue)


def test_where_every_pair_flips_the_clusters_signs_are_tested() -> None:
    of = estimate(np.ones((60, 1, 1)), {"texts": memberships(np.repeat(np.arange(6), 10))})
    assert p_clustered(of)[0, 0] == 2 / 2**6


def three_roles(values: np.ndarray, roles: np.ndarray) -> float:
    """Return the variance of a mean of units that depend on three texts each: sum over pairs of units that share any."""
    e = (values - values.mean()) / len(values)
    shares = np.array([[bool(set(a) & set(b)) for b in roles] for a in roles])
    return float(e @ shares @ e)


def test_units_of_three_texts_count_once_however_many_they_share() -> None:
    rng = np.random.default_rng(5)
    roles = np.argsort(rng.random((400, 150)), axis=1)[:, :3]
    values = rng.normal(size=150)[roles].sum(axis=1) + rng.normal(size=400)
    of = estimate(values[:, None, None], {"texts": memberships(*roles.T)})
    assert of.se[0, 0] ** 2 == pytest.approx(three_roles(values, roles), rel=0.2)  # the jackknife deletes, that sum weighs


def test_a_few_large_clusters_count_as_few() -> None:
    sizes = [200] * 4 + [2] * 100
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    values = np.random.default_rng(6).normal(size=(len(clusters), 1, 1))
    of = estimate(values, {"texts": memberships(clusters)})
    kish = sum(sizes) ** 2 / sum(n * n for n in sizes)
    assert of.df[0] == pytest.approx(kish - 1) and 6 < kish < 7
    balanced = estimate(values[:800], {"texts": memberships(np.repeat(np.arange(40), 20))})
    assert balanced.df[0] == pytest.approx(39)


def test_differences_between_labels_are_no_chance() -> None:
    """Ten texts of each of five labels, whose means are far apart: the labels are the design's, not drawn."""
    rng = np.random.default_rng(7)
    texts = np.repeat(np.arange(50), 4)
    label = texts % 5
    values = (10.0 * label + rng.normal(size=50)[texts])[:, None, None]
    plain = estimate(values, {"texts": memberships(texts)})
    known = estimate_of(values, Design({"texts": memberships(texts)}, label[:, None]))
    within = np.mean([values[label == k].reshape(10, 4).mean(axis=1).var(ddof=1) for k in range(5)]) / 50
    assert known.se[0, 0] ** 2 == pytest.approx(within) and plain.se[0, 0] > 5 * known.se[0, 0]
    assert known.df[0] == pytest.approx(45) and known.mean == plain.mean


@pytest.mark.parametrize("texts", (5, 6, 8))
def test_labels_with_a_single_text_share_a_stratum(texts: int) -> None:
    of_unit = np.repeat(np.arange(texts), 6)
    values = np.random.default_rng(8).normal(size=(len(of_unit), 1, 1))
    of = estimate_of(values, Design({"texts": memberships(of_unit)}, (of_unit % 5)[:, None]))
    assert of.se[0, 0] > 0 and of.df[0] >= 1


def test_sources_that_hold_their_speakers_take_their_place() -> None:
    units = np.arange(240)
    clusters = {"texts": memberships(units % 20), "speakers": memberships(units % 24), "sources": memberships(units % 24 % 8)}
    values = np.random.default_rng(9).normal(size=(240, 1, 1))
    assert estimate(values, clusters).clusters == "texts and sources"
    crossed = clusters | {"sources": memberships(units // 40)}
    of = estimate(values, crossed)
    assert of.clusters == "texts and speakers and sources" and of.se > estimate(values, clusters).se * 0.5
    three = clusters | {"sources": memberships(units % 3)}
    assert estimate(values, three).clusters == "texts and speakers"  # three sources are held fixed


def test_difference_of_shares_by_hand() -> None:
    """Newcombe's square-and-add from Wilson limits: 12 of 100 came, 5 went, independent errors."""
    up, down = (0.12, 0.0700, 0.1981), (0.05, 0.0215, 0.1118)
    low, high = gain_interval(*(tuple(np.array([x]) for x in side) for side in (up, down)), np.array([0.0]))
    assert low[0] == pytest.approx(0.07 - np.hypot(0.05, 0.0618)) and high[0] == pytest.approx(0.07 + np.hypot(0.0781, 0.0285))
