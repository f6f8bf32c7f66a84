"""Variances that are unbiased, degrees of freedom, and the forms of the intervals, each by hand or against simulated truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from activation_patching.span.findings import span_effects
from activation_patching.span.tables import tables_of
from common.stats.clustered_means import ClusteredMeans
from common.stats.clustered_means import estimate as estimate_of
from common.stats.clusters import Design, label_means, memberships
from common.stats.crossings import crossing
from common.stats.intervals import difference_interval, first_from, interval, reach_of
from common.stats.layer_tables import Metric, gain, layer_table, limits, measure
from common.stats.units import Units
from tests.activation_patching.test_effects import MODELS
from tests.tiny_models import planted


def estimate(values: np.ndarray, clusters: dict) -> ClusteredMeans:
    return estimate_of(values, Design(clusters))


def simulated_variance(rng: np.random.Generator, codes: dict[str, np.ndarray], labels: np.ndarray | None = None) -> float:
    """Return the mean variance that is estimated, divided by the true one: independent effects of each cluster and unit."""
    draws, n = 3000, next(iter(codes.values())).shape[1]
    values, truth = rng.normal(size=(n, draws)), 1 / n
    for roles in codes.values():
        for of_role in roles:
            values += rng.normal(size=(of_role.max() + 1, draws))[of_role]
            truth += float((np.bincount(of_role) ** 2.0).sum()) / n**2
    of = estimate_of(values[:, :, None], Design({name: memberships(*roles) for name, roles in codes.items()}, labels))
    return float((of.se**2).mean() / truth)


def zipf(rng: np.random.Generator, n: int, levels: int) -> np.ndarray:
    chance = 1 / np.arange(1.0, levels + 1)
    return np.concatenate([np.arange(levels), rng.choice(levels, size=n - levels, p=chance / chance.sum())])


@pytest.mark.parametrize("design", ("pairs", "pairs of eight texts", "crossed", "unequal", "labels"))
def test_the_variance_of_a_mean_is_unbiased(design: str) -> None:
    rng = np.random.default_rng(0)
    labels = None
    if design == "crossed":
        codes = dict(zip(("texts", "speakers"), np.indices((8, 6)).reshape(2, 1, -1)))
    elif design == "unequal":
        codes = {"texts": zipf(rng, 300, 30)[None], "speakers": rng.permutation(zipf(rng, 300, 12))[None]}
    else:
        texts, n = (8, 120) if "eight" in design else (20, 200)
        codes = {"texts": np.argsort(rng.random((n, texts)), axis=1)[:, :2].T}
        labels = codes["texts"].T % 4 if design != "pairs" else None
        assert labels is None or label_means(Design({"texts": memberships(*codes["texts"])}, labels), ["texts"]).shape[1] == 7
    assert simulated_variance(rng, codes, labels) == pytest.approx(1, abs=0.06)


def test_clips_that_share_their_text_say_less() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=(20, 1, 1)), 10, axis=0)  # ten equal clips of each text
    shared, own = (estimate(values, {"texts": memberships(k)}) for k in (np.repeat(np.arange(20), 10), np.arange(200)))
    assert shared.se[0, 0] == pytest.approx(values[::10].std(ddof=1) / np.sqrt(20)) and shared.se[0, 0] > 3 * own.se[0, 0]
    assert own.df[0] == pytest.approx(199) and shared.df[0] == pytest.approx(19, rel=0.1)


@pytest.mark.parametrize(
    ("texts", "speakers", "clusters"),
    [
        (20, 2, "texts"),
        (20, 4, "texts"),
        (20, 5, "texts and speakers"),
        (2, 24, "speakers"),
        (3, 2, "texts"),
        (2, 4, "speakers"),
        (5, 5, "texts and speakers"),
        (5, 4, "texts"),
        (1, 1, "none: no two texts or speakers to tell apart"),
    ],
)
def test_fewer_than_five_speakers_or_texts_are_held_fixed_and_the_estimate_says_so(
    texts: int, speakers: int, clusters: str
) -> None:
    t, s = np.indices((texts, speakers)).reshape(2, -1)
    values = np.random.default_rng(0).normal(size=(len(t), 1, 2))
    of = estimate(values, {"texts": memberships(t), "speakers": memberships(s)})
    assert of.clusters == clusters and np.isnan(of.se).all() == clusters.startswith("none")
    if not clusters.startswith("none"):
        assert reach_of(of)[0] > 2.3 if max(texts, speakers) < 5 else reach_of(of)[0] < 3.5  # of three texts the interval is wide


def test_a_cluster_that_both_clips_of_a_pair_are_in_counts_once() -> None:
    assert memberships(["a", "b", "c"], ["a", "c", "b"]).tolist() == [[0, -1], [1, 2], [2, 1]]


def test_sources_that_hold_their_speakers_take_their_place() -> None:
    units = np.arange(240)
    clusters = {"texts": memberships(units % 20), "speakers": memberships(units % 24), "sources": memberships(units % 24 % 8)}
    values = np.random.default_rng(9).normal(size=(240, 1, 1))
    assert estimate(values, clusters).clusters == "texts and sources"
    assert estimate(values, clusters | {"sources": memberships(units // 40)}).clusters == "texts and speakers and sources"
    assert (
        estimate(values, clusters | {"sources": memberships(units % 3)}).clusters == "texts and speakers"
    )  # three are held fixed


def test_a_few_large_clusters_count_as_few() -> None:
    """Four of 200 and a hundred of 2: Kish's effective number of clusters is 5.0, so there are about 4 degrees of freedom."""
    sizes = [200] * 4 + [2] * 100
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    effects = 3 * np.random.default_rng(6).normal(size=len(sizes))[clusters]
    of = estimate(
        (effects + np.random.default_rng(7).normal(size=len(clusters)))[:, None, None], {"texts": memberships(clusters)}
    )
    kish = sum(sizes) ** 2 / sum(n * n for n in sizes)
    assert 6 < kish < 7 and kish - 1.5 < of.df[0] < kish + 1.5 and of.levels < kish + 1.5


def test_degrees_of_freedom_are_those_of_the_clusters_where_these_decide_and_never_those_of_the_units_alone() -> None:
    rng, texts = np.random.default_rng(8), np.repeat(np.arange(10), 30)
    clusters = {"texts": memberships(texts)}
    of_texts = estimate((5 * rng.normal(size=10)[texts] + rng.normal(size=300))[:, None, None], clusters)
    assert of_texts.df[0] == pytest.approx(9, rel=0.02)
    alike = rng.normal(size=(10, 30))
    alike -= alike.mean(axis=1, keepdims=True)  # texts do not differ at all
    weight = np.array([0.1 / 10, 1 / 300])  # a tenth of the variance is taken to be theirs
    share = weight / weight.sum()
    of_units = estimate(alike.reshape(-1, 1, 1), clusters)
    assert of_units.df[0] == pytest.approx(1 / (share[0] / 9 + share[1] / 299))


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
    assert known.df[0] == pytest.approx(45, rel=0.02) and known.mean == plain.mean


@pytest.mark.parametrize(("texts", "columns"), [(6, 1), (9, 1), (10, 5)])
def test_means_of_labels_are_taken_out_where_each_has_two_texts(texts: int, columns: int) -> None:
    of_unit = np.repeat(np.arange(texts), 6)
    design = Design({"texts": memberships(of_unit)}, (of_unit % 5)[:, None])
    assert label_means(design, ["texts"]).shape[1] == columns and label_means(design, ["speakers"]).shape[1] == 1


def test_means_of_labels_are_left_in_where_there_are_few_units() -> None:
    roles = np.array([(i % 10, (i + 1 + i // 10) % 10) for i in range(40)]).T
    for n, columns in ((40, 9), (18, 9), (17, 1)):  # twice as many units as means
        design = Design({"texts": memberships(*roles[:, :n])}, roles[:, :n].T % 5)
        assert label_means(design, ["texts"]).shape[1] == columns


def test_wilson_by_hand() -> None:
    """40 of 100 independent clips: the interval of Wilson, as published, but for t in place of the normal quantile."""
    values = np.repeat([1.0, 0.0], [40, 60])[:, None, None]
    low, high = interval(estimate(values, {"texts": memberships(np.arange(100))}), share=np.array([True]))
    assert (low[0, 0], high[0, 0]) == pytest.approx((0.3094, 0.4980), abs=2e-3)


def test_where_all_units_agree_they_cluster_as_at_the_other_layers_or_each_text_is_one_observation() -> None:
    flips = np.zeros((200, 1, 4))
    flips[:100, 0, 1] = 1
    flips[::2, 0, 2] = 1
    flips[:, 0, 3] = 1
    clusters = {"texts": memberships(np.repeat(np.arange(50), 4))}
    of = estimate(flips, clusters)
    low, high = interval(of, share=np.array([True]))
    assert (low >= 0).all() and (high <= 1).all() and (low < of.mean)[0, 1:].all() and (high > of.mean)[0, :3].all()
    usual, reach = np.median([0.25 / of.se[0, i] ** 2 for i in (1, 2)]), reach_of(of)[0]
    assert high[0, 0] == pytest.approx(reach**2 / (usual + reach**2)) and low[0, 3] == pytest.approx(1 - high[0, 0])
    alone = estimate(flips[:, :, :1], clusters)
    _, high = interval(alone, share=np.array([True]))
    reach = reach_of(alone)[0]
    assert alone.levels == pytest.approx(50) and high[0, 0] == pytest.approx(reach**2 / (50 + reach**2))


def test_difference_of_shares_by_hand() -> None:
    """Newcombe's square-and-add from Wilson limits: 12 of 100 came, 5 went; independent errors, and errors that are related."""
    up, down = (0.12, 0.0700, 0.1981), (0.05, 0.0215, 0.1118)
    sides = [tuple(np.array([x]) for x in side) for side in (up, down)]
    low, high = difference_interval(*sides, np.array([0.0]))
    assert low[0] == pytest.approx(0.07 - np.hypot(0.05, 0.0618)) and high[0] == pytest.approx(0.07 + np.hypot(0.0781, 0.0285))
    low, high = difference_interval(*sides, np.array([1.0]))
    assert low[0] == pytest.approx(0.07 - abs(0.05 - 0.0618)) and high[0] == pytest.approx(0.07 + abs(0.0781 - 0.0285))


def units_of(texts: np.ndarray) -> Units:
    import pandas as pd

    nothing = pd.DataFrame(index=range(len(texts)))
    return Units(nothing, nothing, np.arange(1), Design({"texts": memberships(texts)}))


def test_a_difference_uses_how_its_sides_are_related() -> None:
    """Both sides go with the text: their difference is known better than either. The interval is nearly that of Student's t."""
    rng, texts = np.random.default_rng(1), np.repeat(np.arange(60), 10)
    of_text = rng.uniform(0.1, 0.8, size=60)[texts]
    up, down = ((rng.random(600) < of_text).astype(float)[:, None] for _ in range(2))
    metrics = {"effect": Metric(up, down=down), "t": Metric(up - down), "up": Metric(up, share=True)}
    of = measure(units_of(texts), metrics)
    low, high = limits(of, metrics)
    assert high[0, 0] - low[0, 0] == pytest.approx(high[1, 0] - low[1, 0], rel=0.03)
    together = np.sqrt(of.se[3, 0] ** 2 + of.se[4, 0] ** 2)
    assert of.se[0, 0] < 0.85 * together


def test_a_difference_of_which_neither_side_occurs_is_no_point() -> None:
    nothing = np.zeros((80, 1))
    metrics = {"effect": Metric(nothing, down=nothing), "gain": gain(nothing)}
    of = measure(units_of(np.repeat(np.arange(20), 4)), metrics)
    low, high = limits(of, metrics)
    limit = reach_of(of)[0] ** 2 / (20 + reach_of(of)[0] ** 2)  # of each side, twenty texts being as many observations
    np.testing.assert_allclose(low, -limit)
    np.testing.assert_allclose(high, limit)


def test_a_ratio_is_that_of_the_means_and_its_interval_that_of_what_is_left_out() -> None:
    rng, texts = np.random.default_rng(2), np.repeat(np.arange(200), 2)
    below = rng.uniform(1, 2, size=(400, 1))
    above = 0.6 * below + 0.1 * rng.normal(size=(400, 1)) + 0.1 * rng.normal(size=(200, 1))[texts]
    of = measure(units_of(texts), {"ratio": Metric(above, over=below)})
    assert of.mean[0, 0] == pytest.approx(above.mean() / below.mean())
    left = np.array([above[texts != t].mean() / below[texts != t].mean() for t in range(200)])
    assert of.se[0, 0] == pytest.approx(np.sqrt(199 / 200 * ((left - of.mean[0, 0]) ** 2).sum()), rel=0.01)


def means(mean: list[float], se: list[float], df: list[float]) -> ClusteredMeans:
    """Return estimates of some results at one layer."""
    columns = [np.array(v)[:, None] for v in (mean, se)]
    return ClusteredMeans(*columns, np.ones((len(mean), 1, 1)), np.array(df), "texts", 20, 100)


def test_every_result_has_the_reach_of_its_own_degrees_of_freedom() -> None:
    of = means([1, 1], [0.1, 0.1], [3, 50])
    low, high = interval(of, share=np.array([False, False]))
    np.testing.assert_allclose((high - low)[:, 0] / 0.2, stats.t.isf(0.025, [3, 50]))


@pytest.mark.parametrize(("se", "related"), [(0.01, 1), (0.9, -1)])
def test_sides_are_never_more_than_wholly_related(se: float, related: float) -> None:
    """Variances of a difference and of its sides are estimated apart, so what they say of it may lie beyond 1."""
    of = means([0.2, 0.5, 0.3], [se, 0.1, 0.2], [20, 20, 20])
    found = limits(of, {"effect": Metric(np.zeros((1, 1)), down=np.zeros((1, 1)))})
    low, high = interval(of, share=np.array([False, True, True]))
    expected = difference_interval(*((of.mean[i], low[i], high[i]) for i in (1, 2)), np.array([related]))
    np.testing.assert_allclose([found[0][0], found[1][0]], expected)


def test_first_from() -> None:
    holds = np.array([[0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], dtype=bool)
    assert first_from(holds).tolist() == [3, 0, 5]


def test_the_reach_is_students() -> None:
    of = estimate(np.random.default_rng(0).normal(size=(12, 1, 1)), {"texts": memberships(np.arange(12))})
    assert reach_of(of)[0] == pytest.approx(stats.t.isf(0.025, 11), rel=1e-6)


def test_a_side_without_a_single_unit_is_taken_to_cluster_like_the_other() -> None:
    """A third of 300 pairs of 20 texts flip, none to a third label: the interval must not be that of 20 observations."""
    rng = np.random.default_rng(0)
    flips = (rng.random((300, 1)) < 0.3).astype(float)
    units = Units(
        pd.DataFrame(), pd.DataFrame(index=range(300)), np.arange(1), Design({"texts": memberships(np.arange(300) % 20)})
    )
    table = layer_table(units, {"effect": Metric(flips, down=0 * flips)})
    assert table.effect_lo[0] > 0.2 and table.effect_hi[0] < 0.4


def test_a_crossing_lies_on_the_line_between_listed_layers_wherever_they_are() -> None:
    """Curves that are straight between the listed layers cross at the same place, whichever layers between are listed too."""
    rng, all_layers = np.random.default_rng(0), np.arange(21)
    ends = np.stack([rng.normal(height, 0.4, 40) for height in (-1.0, -1.0, 0.5, 1.0)], axis=1)
    listed = [0, 3, 11, 20]
    curves = np.array([np.interp(all_layers, listed, unit) for unit in ends])
    design = Design({"texts": memberships([str(i) for i in range(40)])})
    whole = crossing(estimate_of(curves[:, None], design), all_layers)
    some = crossing(estimate_of(curves[:, None][..., listed], design), listed)
    assert 7 < whole.place < 9.5 and some.place == pytest.approx(whole.place, abs=0.05)
    assert (some.low, some.high) == pytest.approx((whole.low, whole.high), abs=0.5)


def test_a_crossing_by_hand() -> None:
    """Four units near -1, 1, 3 at l = 0, 4, 5: through 0 at l = 2; nowhere where the last layer's interval holds 0."""
    curves = np.array([[-1.0, 1, 3]]) + 0.1 * np.array([[-1], [-1], [1], [1]])
    design = Design({"texts": memberships(list("abcd"))})
    found = crossing(estimate_of(curves[:, None], design), (0, 4, 5))
    se = 0.2 / np.sqrt(3) / 2
    half = stats.t.isf(0.025, 3) * se  # of the curve at every place; the line rises by a half a layer
    assert found.place == pytest.approx(2) and found.reason == ""
    assert found.low == pytest.approx(2 - 2 * half, abs=0.2) and found.high == pytest.approx(2 + 2 * half, abs=0.2)
    assert crossing(estimate_of(curves[:, None] - 2.95, design), (0, 4, 5)).reason == "its interval at the last layer holds 0"
    above = crossing(estimate_of(curves[:, None] + 3, design), (0, 4, 5))
    assert (above.place, above.low, above.high) == (0, 0, 0)


def test_what_is_found_is_of_the_listed_layers() -> None:
    rows = planted.patches(planted.clips(texts=2), MODELS["hears words only"].rule, "semantic")
    listed = (0, 2, 5, 6, 10)
    (found,) = span_effects(tables_of(rows[rows.layer.isin(listed)]))
    assert found.layers == (2, 6) and found.effect.value == pytest.approx(2 / 3)  # carried at 2 and 5, not at 6
    assert found.half_effect_layer is not None and found.half_effect_layer.value == pytest.approx(5.5, abs=0.05)
