"""Do intervals, bands and tests keep their promise? Tables with a known truth, as unbalanced as real data.

`python -m tests.calibration` prints the table in common/stats/README.md; the tests take a few of its lines with fewer draws. A
line is right where 95 % statements are right in 93 to 97 % of the draws, and where bands miss the truth anywhere in 8 % at most.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from common.stats.nulls import shuffled_hits
from logit_lens.decision import decision_layer
from scipy import stats

from common.stats.covariance import Estimate, estimate
from common.stats.intervals import critical, holm, interval, p_clustered, p_mcnemar
from common.stats.landmarks import crossing
from common.stats.metrics import Metric, gain, limits, measure
from common.stats.units import Units
from logit_lens.tables import lens_layers
from tests import designs, planted, probed
from tests.designs import FACTORS, FIXED_BELOW, LAYERS, Simulated

FEW = 1000  # normals per band: enough for its quantile here
GRADED, RARE = np.linspace(0.03, 0.9, LAYERS), np.geomspace(0.003, 0.05, LAYERS)
RAMP = 0.25 * (np.arange(LAYERS) - 6.5)
CURVES = {  # mean; where it is 0
    "crosses": (RAMP, 6.5),
    "hardly crosses": (0.3 * RAMP, 6.5),
    "jumps": (np.where(np.arange(LAYERS) < 7, -1.2, 1.2), 6.5),
    "leaves 0": (np.where(np.arange(LAYERS) < 7, 0, 1.2), 6.0),  # a crossing at any earlier layer looks alike
}


@dataclass(frozen=True)
class Line:
    """What came out of all draws: how often intervals held the truth and bands missed it anywhere, and false claims."""

    design: str
    what: str
    held: float
    missed: float = float("nan")
    false: float = float("nan")
    note: str = ""


def coverage(
    of: Estimate,
    truth: np.ndarray | float,
    ends: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    *,
    layers: slice = slice(None),
) -> tuple[float, float]:
    """Return how often the intervals at `layers` hold the truth [layer], and how often the band misses it anywhere."""
    held = []
    for reach in critical(of, seed=0, count=FEW):
        low, high = ends(reach)
        held.append((low <= truth + 1e-12) & (truth - 1e-12 <= high))
    return float(held[0][:, layers].mean()), float(1 - held[1].all(axis=1).mean())


def plain(of: Estimate, *, share: bool = False, n: int = 1) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    some = np.full(len(of.mean), share)
    return lambda reach: interval(of, reach, share=some, counted=np.full(of.mean.shape, float(n)))


def means(name: str, draws: int, *, labels: int = 0) -> Line:
    simulated = designs.clips(name, 0, draws, labels=labels)
    of = estimate(simulated.noise, simulated.design)
    held, missed = coverage(of, 0, plain(of))
    p = p_clustered(of)
    note = f"{of.clusters}, df {of.df.mean():.0f}"
    what = "means" + (f", {labels} labels" if labels else "")
    return Line(name, what, held, missed, float(np.mean([(holm(row) < 0.05).any() for row in p])), note)


def shares(name: str, draws: int) -> Line:
    """Shares; effects of what is held fixed are left out, for what they do to a share is no mean of 0."""
    truth = RARE if name == "200 x 10" else GRADED
    simulated = _without_fixed(name, 1, draws)
    flips = (simulated.noise < simulated.scale * stats.norm.ppf(truth)).astype(float)
    of = estimate(flips, simulated.design)
    held, missed = coverage(of, truth, plain(of, share=True, n=len(flips)))
    return Line(name, "rare shares" if name == "200 x 10" else "shares", held, missed)


def _without_fixed(name: str, seed: int, draws: int) -> Simulated:
    levels = {factor: codes.max() + 1 for factor, codes in FACTORS[name](np.random.default_rng(seed)).items()}
    return designs.clips(
        name, seed, draws, effects={f: e * (levels.get(f, 9) >= FIXED_BELOW) for f, e in designs.EFFECTS.items()}
    )


def gains(name: str, draws: int, *, simulated: Simulated | None = None) -> Line:
    """Differences of paired shares, where .05 or more change; the first layers, where hardly any does, in the note."""
    simulated = simulated or _without_fixed(name, 2, draws)
    rates = np.array([0, 0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.16, 0.2, 0.3])
    up, down = rates, rates / 4
    change = (simulated.noise > simulated.scale * stats.norm.isf(up)).astype(float) - (
        simulated.noise < -simulated.scale * stats.norm.isf(down)
    )
    units = units_of(simulated)
    metrics = {str(draw): gain(change[:, draw]) for draw in range(change.shape[1])}
    of, share, counted = measure(units, metrics)
    some = int(np.argmax(rates >= 0.05))
    (held, missed), (rare, _) = (
        coverage(of, up - down, lambda reach: limits(of, reach, metrics, shares=share, counted=counted), layers=layers)
        for layers in (slice(some, None), slice(some))
    )
    none = (np.abs(simulated.noise) > simulated.scale * stats.norm.isf(0.05)) * np.sign(simulated.noise)
    flat = estimate(none, simulated.design)
    exact = p_mcnemar((none > 0).sum(axis=0), (none < 0).sum(axis=0))
    p = np.maximum(p_clustered(flat), exact)
    false = float(np.mean([(holm(row) < 0.05).any() for row in p]))
    return Line(name, "flips gained", held, missed, false, f"intervals {rare:.3f} where fewer than .05 flip")


def units_of(simulated: Simulated) -> Units:
    nothing = pd.DataFrame(index=range(len(simulated.noise)))
    return Units(nothing, nothing, np.arange(LAYERS), simulated.design)


def crossings(name: str, curve: str, draws: int) -> Line:
    mean, truth = CURVES[curve]
    simulated = designs.clips(name, 5, draws)
    found = [
        crossing(one, range(LAYERS), seed=i, count=FEW)
        for i, one in enumerate(each(estimate(simulated.noise + mean, simulated.design)))
    ]
    there = [f for f in found if not np.isnan(f.place)]
    held = np.mean([f.low - 0.5 / 20 <= truth <= f.high + 0.5 / 20 for f in there])
    width, late = np.median([f.high - f.low for f in there]), np.median([f.shown for f in there])
    middle, none = np.median([f.place for f in there]), 1 - len(there) / draws
    note = f"median {middle:.1f} of {truth}, width {width:.1f}, shown from {late:.0f}; none in {none:.2f}"
    return Line(name, f"crossing: {curve}", float(held), note=note)


def each(of: Estimate) -> list[Estimate]:
    """Return the estimate of each column alone."""
    at = [slice(i, i + 1) for i in range(len(of.mean))]
    return [replace(of, mean=of.mean[i], se=of.se[i], correlation=of.correlation[i], df=of.df[i]) for i in at]


def releases(draws: int, *, roles: int = 2) -> Line:
    mean = 2 * (1 - np.arange(LAYERS) / (LAYERS - 1)) ** 1.2
    simulated = designs.pairs(6, draws, roles=roles)
    curves = mean + mean / 2 * simulated.noise  # at the last layer a patch does nothing
    truth = float(np.interp(0, mean[0] / 2 - mean, range(LAYERS)))
    found = [
        crossing(one, range(LAYERS), seed=i, count=FEW)
        for i, one in enumerate(each(estimate(curves[:, :, :1] / 2 - curves, simulated.design)))
    ]
    held = np.mean([f.low - 0.5 / 20 <= truth <= f.high + 0.5 / 20 for f in found if not np.isnan(f.place)])
    return Line("pairs", "release layer", float(held), note=f"width {np.median([f.high - f.low for f in found]):.1f}")


def pair_means(draws: int, *, roles: int, texts: int = 40, n: int = 500) -> Line:
    simulated = designs.pairs(0, draws, roles=roles, texts=texts, n=n)
    of = estimate(simulated.noise, simulated.design)
    held, missed = coverage(of, 0, plain(of))
    false = float(np.mean([(holm(row) < 0.05).any() for row in p_clustered(of)]))
    return Line(f"{n} pairs of {roles} of {texts} texts", "means", held, missed, false)


def ratios(name: str, draws: int) -> Line:
    """As directedness: a share among the few units that count, more of them in some texts than in others."""
    simulated = _without_fixed(name, 3, draws)
    chance = designs.clips(name, 4, draws).noise[:, :, :1]
    counts = np.broadcast_to(chance > np.quantile(chance, 0.85), simulated.noise.shape).astype(float)
    truth = np.linspace(0.15, 0.6, LAYERS)
    flips = (simulated.noise < simulated.scale * stats.norm.ppf(truth)) * counts
    metrics = {str(d): Metric(flips[:, d], over=np.ascontiguousarray(counts[:, d]), share=True) for d in range(draws)}
    of, share, counted = measure(units_of(simulated), metrics)
    held, missed = coverage(of, truth, lambda reach: limits(of, reach, metrics, shares=share, counted=counted))
    return Line(name, "ratio (directedness)", held, missed)


def nulls(name: str, draws: int) -> Line:
    """What the voice wins beyond the answers shuffled within the words' label, of answers that do not depend on the voice."""
    rng = np.random.default_rng(9)
    simulated = designs.clips(name, 9, 1)
    design = simulated.design
    texts, speakers = design.clusters["texts"][:, 0], design.clusters["speakers"][:, 0]
    words, k = texts % 5, 5
    liked = rng.gumbel(size=(speakers.max() + 1, k))[speakers] + rng.gumbel(size=(len(texts), k))
    liked[np.arange(len(texts)), words] = -np.inf
    voice = liked.argmax(axis=1)
    shape = (draws, LAYERS, k)
    habits = [rng.normal(size=(n.max() + 1, *shape)).astype(np.float32)[n] for n in (texts, speakers)]
    answers = (habits[0] + habits[1] + rng.normal(size=(len(texts), *shape)) + np.array([0, 0, 0, 1, 0])).argmax(axis=-1)
    flat = answers.reshape(len(texts), -1)
    null = shuffled_hits(words, flat, voice, np.ones(flat.shape, dtype=bool))
    excess = ((flat == voice[:, None]) - null).reshape(answers.shape)
    metrics = {str(d): gain(excess[:, d]) for d in range(draws)}
    of, share, counted = measure(units_of(simulated), metrics)
    held, missed = coverage(of, 0, lambda reach: limits(of, reach, metrics, shares=share, counted=counted))
    return Line(name, "voice beyond shuffled answers", held, missed)


def equivalence(name: str, draws: int) -> Line:
    """How often fewer than .05 of the answers are said to change from some layer on, where .05 do at the last ones."""
    simulated = _without_fixed(name, 7, draws)
    flips = (simulated.noise < simulated.scale * stats.norm.ppf(0.05)).astype(float)
    of = estimate(flips, simulated.design)
    reach, _ = critical(of, seed=0, count=10, level=0.9)
    _, high = plain(of, share=True, n=len(flips))(reach)
    return Line(name, "nothing left, where .05 is", float("nan"), false=float((high[:, -1] < 0.05).mean()))


def new_sources(draws: int) -> Line:
    """What is not claimed: how often intervals over texts and speakers of three sources would hold the mean over new sources."""
    codes = FACTORS["EMIS, 104 x 12 x 3"](np.random.default_rng(0))
    simulated = designs.clips("EMIS, 104 x 12 x 3", 0, draws)
    shared = designs.EFFECTS["sources"] * designs.curves(np.random.default_rng(1), 3, draws)
    of = estimate(simulated.noise + shared[codes["sources"]], simulated.design)
    held, missed = coverage(of, 0, plain(of))
    return Line("EMIS, 104 x 12 x 3", "means, as if for new sources: not claimed", held, missed)


def resampled(rows: pd.DataFrame, draws: int) -> list[Line]:
    """Texts of a run drawn again, within their words' label: how often intervals hold what all of its clips give."""
    rows = rows[rows.semantic_label != rows.prosody_label]
    texts = {label: of_label.text_id.unique() for label, of_label in rows.groupby("semantic_label")}
    by_text = {text: of_text for text, of_text in rows.groupby("text_id")}
    truth, where = lens_layers(rows, seed=0), decision_layer(rows, seed=0).iloc[0].crossing
    columns = (
        "margin",
        "margin_excess",
        "win_semantic",
        "win_prosody",
        "voice_lead",
        "win_prosody_excess",
        "win_semantic_excess",
    )
    held: dict[str, list[tuple[float, bool]]] = {c: [] for c in columns}
    crossed = []
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        drawn = [text for of_label in texts.values() for text in rng.choice(of_label, len(of_label))]
        parts = [by_text[t].assign(text_id=str(i), sample_id=by_text[t].sample_id + f"#{i}") for i, t in enumerate(drawn)]
        again = pd.concat(parts, ignore_index=True)
        table = lens_layers(again, seed=draw)
        for c in columns:
            within = (table[f"{c}_lo"] - 1e-9 <= truth[c]) & (truth[c] <= table[f"{c}_hi"] + 1e-9)
            missed = (truth[c] < table[f"{c}_band_lo"] - 1e-9) | (truth[c] > table[f"{c}_band_hi"] + 1e-9)
            held[c].append((float(within[1:].mean()), bool(missed[1:].any())))
        found = decision_layer(again, seed=draw).iloc[0]
        crossed.append(found.crossing_lo - 0.5 / 20 <= where <= found.crossing_hi + 0.5 / 20)
    lines = [Line("a run's texts drawn again", c, *(float(np.mean(x)) for x in zip(*held[c]))) for c in columns]
    return [*lines, Line("a run's texts drawn again", "crossing", float(np.mean(crossed)))]


def claims(draws: int) -> Iterator[Line]:
    """False claims of planted models (see tests/planted.py), each in a share of the draws."""
    for name, rule in planted.RULES.items():
        made = planted.false_claims(rule, draws=draws)
        yield from (Line(name, claim, float("nan"), false=n / draws, note=f"{draws} draws") for claim, n in made.items())


def everything(draws: int) -> Sequence[Callable[[], Line]]:
    lines: list[Callable[[], Line]] = []
    for name in FACTORS:
        lines += [lambda n=name: means(n, draws), lambda n=name: shares(n, draws), lambda n=name: gains(n, draws)]
        lines += [lambda n=name: ratios(n, draws), lambda n=name: equivalence(n, draws)]
        lines += [lambda n=name, c=curve: crossings(n, c, draws) for curve in CURVES]
    for name in ("8 x 3", "40 x 12", "EMIS, 104 x 12 x 3"):
        lines.append(lambda n=name: means(n, draws, labels=5))
    lines += [lambda n=name: nulls(n, draws) for name in ("40 x 12", "Zipf 1, 40 x 12", "MELD-like")]
    for roles in (2, 3):
        lines += [lambda r=roles: pair_means(draws, roles=r), lambda r=roles: pair_means(draws, roles=r, texts=12, n=1000)]
        lines += [
            lambda r=roles: replace(
                gains("", draws, simulated=designs.pairs(8, draws, roles=r)), design=f"500 pairs of {r} of 40 texts"
            )
        ]
    ten = {"text": 0.5, "speaker": 0.0, "texts": 10, "n": 90}
    lines.append(lambda: replace(gains("", draws, simulated=designs.pairs(8, draws, **ten)), design="90 pairs of 2 of 10 texts"))
    return [*lines, lambda: releases(draws), lambda: new_sources(draws)]


def probes(draws: int) -> Iterator[Line]:
    """Intervals of a probe's accuracy, whose truth is its mean over draws; false: what is not there is told beyond a guess."""
    for design in probed.DESIGNS:
        for label, found in probed.coverage(design, draws).groupby("label", sort=False):
            nothing = found[found.strength == 0].iloc[0]
            held = ", ".join(f"{s:.0f}: {a:.3f} held {h:.3f}" for s, a, h in zip(found.strength, found.accuracy, found.held))
            yield Line(design, f"probe of the {label}", found.held.mean(), nothing.missed, nothing.above, held)


def lines_of(args: argparse.Namespace) -> Iterator[Line]:
    if args.only in (None, "designs"):
        yield from (make() for make in everything(args.draws))
    if args.rows and args.only in (None, "rows"):
        yield from resampled(pd.read_csv(args.rows, dtype={"text_id": str}), args.draws)
    if args.only in (None, "claims"):
        yield from claims(args.draws // 5)
    if args.only in (None, "probes"):
        yield from probes(args.draws * 3 // 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--rows", type=Path, help="lens.csv of a run whose texts are drawn again")
    parser.add_argument("--only", choices=("designs", "rows", "claims", "probes"), help="one part of it")
    args = parser.parse_args()
    print("| design | what | intervals hold | bands miss | any false p | |\n|---|---|---|---|---|---|")
    for line in lines_of(args):
        figures = ["" if np.isnan(f) else f"{f:.3f}" for f in (line.held, line.missed, line.false)]
        print(f"| {line.design} | {line.what} | {' | '.join(figures)} | {line.note} |", flush=True)


if __name__ == "__main__":
    main()
