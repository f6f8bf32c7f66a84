"""Do intervals, bands and tests keep their promise? Simulated tables with a known truth and clustered noise.

Texts and speakers have effects that are correlated over the layers, like the noise. The share of draws in which a 95 % statement
is right must be 95 %, give or take; and the same must fail for intervals that take clips for independent, so that the
simulation is one that can tell.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from common.stats.landmarks import Landmark, crossing, halving
from common.stats.resampling import Estimate, critical, estimate, holm, interval, memberships, p_clustered, p_mcnemar
from common.stats.units import mean_difference, ratio
from logit_lens.tables import lens_layers

DRAWS = 1000  # simulated tables
LAYERS = 13
LABELS = ("neutral", "happy", "sad", "angry", "surprised")
FEW = 1000  # normals per band: enough for its quantile here
SMOOTH = np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(np.arange(LAYERS), np.arange(LAYERS)))).astype(np.float32)


def curves(rng: np.random.Generator, n: int, draws: int = DRAWS) -> np.ndarray:
    """Return `n` random curves of standard deviation 1, correlated over the layers, for each draw: [n, draw, layer]."""
    return rng.standard_normal((n, draws, LAYERS), dtype=np.float32) @ SMOOTH.T


def clips(rng: np.random.Generator, *, text: float, speaker: float, texts: int = 40, speakers: int = 12, kept: float = 0.7):
    """Return noise [clip, draw, layer] of texts crossed with speakers, some cells missing, and what the clips share."""
    t, s = np.indices((texts, speakers)).reshape(2, -1)[:, rng.random(texts * speakers) < kept]
    noise = text * curves(rng, texts)[t] + speaker * curves(rng, speakers)[s] + curves(rng, len(t))
    return noise, {"texts": memberships(t), "speakers": memberships(s)}


def pairs(rng: np.random.Generator, *, text: float, speaker: float, texts: int = 40, n: int = 500, speakers: int = 12):
    """Return the same for pairs of texts drawn at random: each text is recipient in some and donor in others."""
    recipient = rng.integers(texts, size=n)
    donor = (recipient + rng.integers(1, texts, size=n)) % texts
    s = rng.integers(speakers, size=n)
    effects = curves(rng, texts)
    noise = text * (effects[recipient] + 0.7 * effects[donor]) + speaker * curves(rng, speakers)[s] + curves(rng, n)
    return noise, {"texts": memberships(recipient, donor), "speakers": memberships(s, s)}


DESIGNS = {
    "clips": (clips, {"text": 0.6, "speaker": 0.4}),
    "clips, speakers alike": (clips, {"text": 0.6, "speaker": 0.0}),
    "clips, ten texts": (clips, {"text": 0.6, "speaker": 0.4, "texts": 10, "speakers": 40}),
    "pairs": (pairs, {"text": 0.5, "speaker": 0.4}),
    "pairs, speakers alike": (pairs, {"text": 0.3, "speaker": 0.0}),
}


def coverage(of: Estimate, truth: np.ndarray | float, *, share: bool = False) -> tuple[float, float]:
    """Return how often the intervals hold the truth [layer], and how often the band misses it anywhere."""
    columns = len(of.mean)
    held = []
    for reach in critical(of, seed=0, count=FEW):
        low, high = interval(of, reach, share=np.full(columns, share), counted=np.full(of.mean.shape, 1e3))
        held.append((low <= truth) & (truth <= high))
    return held[0].mean(), 1 - held[1].all(axis=1).mean()


@pytest.mark.parametrize("name", DESIGNS)
def test_means(name: str) -> None:
    build, options = DESIGNS[name]
    noise, factors = build(np.random.default_rng(0), **options)
    within, missed = coverage(estimate(noise, factors), 0)
    print(f"{name}: intervals {within:.3f}, band misses {missed:.3f}")
    assert 0.93 <= within <= 0.97 and missed <= 0.06


@pytest.mark.parametrize("name", ("clips", "pairs"))
def test_taking_clips_for_independent_would_be_found_out(name: str) -> None:
    build, options = DESIGNS[name]
    noise, _ = build(np.random.default_rng(0), **options)
    within, missed = coverage(estimate(noise, {"texts": memberships(np.arange(len(noise)))}), 0)
    print(f"{name} as if independent: intervals {within:.3f}, band misses {missed:.3f}")
    assert within < 0.9 and missed > 0.1


@pytest.mark.parametrize("name", ("clips", "pairs"))
def test_shares(name: str) -> None:
    build, options = DESIGNS[name]
    noise, factors = build(np.random.default_rng(1), **options)
    t, s = options["text"], options["speaker"]
    total = np.sqrt(1 + s**2 + t**2 * (1 if name == "clips" else 1 + 0.7**2))
    truth = np.linspace(0.03, 0.9, LAYERS)
    within, missed = coverage(estimate((noise < total * stats.norm.ppf(truth)).astype(float), factors), truth, share=True)
    print(f"shares of {name}: intervals {within:.3f}, band misses {missed:.3f}")
    assert 0.93 <= within <= 0.97 and missed <= 0.06


def each_draw(function, *arrays: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Return function(*arrays) of arrays [unit, layer], for arrays [unit, draw, layer]."""
    return function(*(a.reshape(len(a), -1) for a in arrays)).reshape(arrays[0].shape)


def test_ratio_of_means() -> None:
    """As recovery: what a patch moves over what the donor's whole run would move."""
    rng = np.random.default_rng(2)
    noise, factors = pairs(rng, text=0.5, speaker=0.4)
    span = 2 + pairs(np.random.default_rng(2), text=0.5, speaker=0.4)[0][:, :, :1] + 0 * noise  # one number per pair
    truth = np.linspace(0.9, 0.1, LAYERS)
    within, missed = coverage(
        estimate(each_draw(lambda a, b: ratio(a, b).values, truth * span + 0.5 * noise, span), factors), truth
    )
    print(f"ratio: intervals {within:.3f}, band misses {missed:.3f}")
    assert 0.93 <= within <= 0.97 and missed <= 0.06


def test_share_of_a_few_eligible_pairs() -> None:
    """As flips among eligible pairs, where a pair in ten is eligible, more of them in some texts than in others."""
    rng = np.random.default_rng(10)
    noise, factors = pairs(rng, text=0.5, speaker=0.0, n=800)
    chance = curves(rng, 40)[factors["texts"][:, 0], :, :1] + curves(rng, 800)[:, :, :1]
    eligible = np.broadcast_to(chance > np.sqrt(2) * stats.norm.isf(0.1), noise.shape).astype(float)
    flips = (noise < np.sqrt(1 + 0.5**2 * 1.49) * stats.norm.ppf(0.3)) * eligible
    values = each_draw(lambda a, b: ratio(a, b).values, flips, eligible)
    within, missed = coverage(estimate(values, factors), 0.3, share=True)
    print(f"share of eligible: intervals {within:.3f}, band misses {missed:.3f}")
    assert 0.93 <= within <= 0.97 and missed <= 0.06


def test_contrast_of_two_kinds_on_the_same_texts() -> None:
    rng = np.random.default_rng(3)
    (noise, factors), (other, others) = (pairs(rng, text=0.5, speaker=0.4, n=n) for n in (250, 400))
    semantic = np.arange(650) < 250
    values = np.concatenate([2 + noise, 1.5 + 0.7 * other])
    factors = {name: np.concatenate([codes, others[name]]) for name, codes in factors.items()}
    within, missed = coverage(estimate(each_draw(lambda a: mean_difference(a, semantic), values), factors), 0.5)
    print(f"contrast: intervals {within:.3f}, band misses {missed:.3f}")
    assert 0.93 <= within <= 0.97 and missed <= 0.06


@pytest.mark.parametrize("changed", (0.05, 0.3))
def test_paired_test(changed: float) -> None:
    """Flips to and from the target are equally frequent, but pairs of a text flip together."""
    noise, factors = pairs(np.random.default_rng(4), text=0.5, speaker=0.4)
    edge = np.sqrt(1 + 0.4**2 + 0.5**2 * (1 + 0.7**2)) * stats.norm.isf(changed / 2)
    gain = (noise > edge).astype(float) - (noise < -edge)
    clustered, exact = p_clustered(estimate(gain, factors)), p_mcnemar((gain > 0).sum(axis=0), (gain < 0).sum(axis=0))
    both = np.maximum(clustered, exact)
    wrong = (both < 0.05).mean()
    wrong_anywhere = np.mean([(holm(p) < 0.05).any() for p in both])
    print(f"paired test, {changed:.0%}: {wrong:.3f} a layer, {wrong_anywhere:.3f} anywhere; exact {(exact < 0.05).mean():.3f}")
    assert 0.01 <= wrong <= 0.055 and wrong_anywhere <= 0.06
    assert (exact < 0.05).mean() > 0.08  # what the exact test alone would claim: it takes the pairs for independent


RAMP = 0.25 * (np.arange(LAYERS) - 6.5)
CURVES = {  # mean margin; the layer from which it is on one side of 0; how wide the interval may be
    "crosses": (RAMP, 7, 5),
    "dives": (-RAMP, 7, 5),
    "hardly crosses": (0.3 * RAMP, 7, LAYERS),
    "steps": (np.where(np.arange(LAYERS) < 7, 0, 1.2), 7, LAYERS),  # 0 for long: a crossing at any of these layers looks alike
    "stays": (np.full(LAYERS, 1.2), 0, 3),
    "is nothing": (np.zeros(LAYERS), LAYERS, LAYERS),
}


def landmarks(find, of: Estimate) -> list[Landmark]:  # type: ignore[no-untyped-def]
    def column(i: int) -> Estimate:
        only = slice(i, i + 1)
        return replace(of, mean=of.mean[only], se=of.se[only], correlation=of.correlation[only], df=of.df[only])

    return [find(column(i), seed=i, count=FEW) for i in range(len(of.mean))]


@pytest.mark.parametrize("name", CURVES)
def test_decision_layer(name: str) -> None:
    mean, truth, wide = CURVES[name]
    noise, factors = clips(np.random.default_rng(5), text=0.6, speaker=0.4)
    found = landmarks(crossing, estimate(noise + mean, factors))
    held = np.mean([f.low <= truth <= f.high for f in found])
    width = np.median([f.high - f.low for f in found])
    print(f"margin {name}: held {held:.3f}, median width {width:.0f}, exact {np.mean([f.layer == truth for f in found]):.3f}")
    assert held >= 0.95 and width <= wide


def test_release_layer() -> None:
    mean = 2 * (1 - np.arange(LAYERS) / (LAYERS - 1)) ** 1.2  # 1.05 at layer 5, half of the 2 at layer 0 is 1
    noise, factors = pairs(np.random.default_rng(6), text=0.5, speaker=0.4)
    fading = mean / mean[0]  # at the last layer a patch does nothing
    found = landmarks(halving, estimate(mean + fading * noise, factors))
    held = np.mean([f.low <= 6 <= f.high for f in found])
    width = np.median([f.high - f.low for f in found])
    print(f"release layer: held {held:.3f}, median width {width:.0f}")
    assert held >= 0.95 and width <= 4
    nothing = landmarks(halving, estimate(fading * noise, factors))
    none = np.mean([f.layer == LAYERS for f in nothing])
    print(f"release layer of nothing: none in {none:.3f}")
    assert 0.93 <= none <= 0.97


def test_independent_clips_get_intervals_that_are_a_little_wide() -> None:
    """The price of minding texts and speakers that turn out to be alike."""
    for build, name in ((clips, "clips"), (pairs, "pairs")):
        noise, factors = build(np.random.default_rng(8), text=0, speaker=0)
        within, missed = coverage(estimate(noise, factors), 0)
        print(f"independent {name}: intervals {within:.3f}, band misses {missed:.3f}")
        assert 0.95 <= within <= 0.99 and missed <= 0.05


def lens_rows(rng: np.random.Generator, texts: int = 30, speakers: int = 12, layers: int = 4) -> pd.DataFrame:
    """Return lens rows whose answer depends on text and speaker but not on the voice; speakers have voices they prefer."""
    t, s = np.indices((texts, speakers)).reshape(2, -1)
    semantic = t % 5
    voices = rng.gumbel(size=(speakers, 5))[s] + rng.gumbel(size=(len(t), 5))
    voices[np.arange(len(t)), semantic] = -np.inf
    prosody = voices.argmax(axis=1)
    habit = rng.normal(size=(texts, 5))[t] + rng.normal(size=(speakers, 5))[s] + np.array([0, 0, 0, 1, 0])
    tables = []
    for layer in range(layers):
        winner = (habit + rng.normal(size=habit.shape)).argmax(axis=1)
        columns = {"sample_id": np.arange(len(t)), "layer": layer, "text_id": t, "speaker": s, "margin": 0.0}
        for name, codes in (("semantic_label", semantic), ("prosody_label", prosody), ("winner", winner)):
            columns[name] = np.take(LABELS, codes)
        columns["outcome"] = np.select([winner == semantic, winner == prosody], ["semantic", "prosody"], "other")
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables)


def test_whole_table_of_an_answer_that_does_not_depend_on_the_voice() -> None:
    """The voice wins no more than the null says, though it wins more than the other labels where the model has a habit."""
    rng = np.random.default_rng(9)
    tables = [lens_layers(lens_rows(rng), seed=draw) for draw in range(300)]
    within = np.mean([(t.win_prosody_excess_lo <= 0) & (t.win_prosody_excess_hi >= 0) for t in tables])
    missed = np.mean([((t.win_prosody_excess_band_lo > 0) | (t.win_prosody_excess_band_hi < 0)).any() for t in tables])
    print(f"excess over the null: intervals {within:.3f}, band misses {missed:.3f}")
    assert 0.93 <= within <= 0.98 and missed <= 0.06  # 300 draws
