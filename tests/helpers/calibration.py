"""How often do 95 % intervals hold the truth? Of clips and pairs with a known truth, as few and as unbalanced as real data.

`python -m tests.helpers.calibration` prints the tables in common/stats/README.md.
The tests take a few of their lines with fewer draws.
The truth is the mean over all draws.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from common.clips.manifest import LABELS
from common.clips.pairs import KINDS
from common.stats.clustered_means import ClusteredMeans, estimate
from common.stats.crossings import crossing
from common.stats.layer_tables import Metric, gain, limits, measure
from common.stats.units import Units
from tests.helpers import designs
from tests.helpers.designs import LAYERS, Gains
from tests.tiny_models import probed

GAINS = {"": Gains(), ", hardly heard": Gains(words=2, voice=0.4), ", uneven": Gains(uneven=4)}
USUAL, RARE, _ = GAINS.values()
INNER = slice(1, -1)


@dataclass(frozen=True)
class Coverage:
    """How often intervals `held` the truth; nan where there was none to be had."""

    what: str
    held: float


def coverage(units: Units, what: str, of_draw: list[Metric]) -> Coverage:
    """Return how often the intervals of a metric held its mean, one metric a draw."""
    metrics = {str(i): metric for i, metric in enumerate(of_draw)}
    of = measure(units, metrics)
    low, high = limits(of, metrics)
    truth = of.mean[: len(metrics)].mean(axis=0)
    return Coverage(what, float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean()))


def of_clips(design: str, gains: Gains, draws: int) -> Iterator[Coverage]:
    """Yield the coverage of shares of clips and of their difference."""
    units, evidence = designs.heard(design, gains, draws)
    answers = evidence.argmax(axis=1)[:, None]  # [clip, layer, draw]
    words, voice = ((answers == codes[:, None, None]).astype(float) for codes in _labels(units))
    yield coverage(units, "share: words", [Metric(words[..., i], share=True) for i in range(draws)])
    yield coverage(units, "share: voice", [Metric(voice[..., i], share=True) for i in range(draws)])
    yield coverage(units, "voice - words", [gain(voice[..., i] - words[..., i]) for i in range(draws)])


def _labels(units: Units) -> list[np.ndarray]:
    return [np.array([LABELS.index(x) for x in units.unit_rows[f"{kind}_label"]]) for kind in KINDS]


def of_pairs(design: str, kind: str, gains: Gains, draws: int) -> Iterator[Coverage]:
    """Yield the coverage of effects in the mean of the inner layers, of shares of answers there, and of the half-effect layer."""
    found = designs.patched(design, kind, gains, draws)
    answers, third, logits, logits_third, changed = (
        np.moveaxis(v.reshape(len(v), draws, LAYERS), 1, 0)
        for v in (
            found.transfer.to_target,
            found.transfer.to_third,
            found.transfer.logit_target,
            found.transfer.logit_third,
            found.changed,
        )
    )

    def inner(values: np.ndarray) -> list[np.ndarray]:
        return [v[:, INNER].mean(axis=1, keepdims=True) for v in values]

    yield coverage(found.units, "share: to target", [Metric(v, share=True) for v in inner(answers)])
    yield coverage(found.units, "share: changed", [Metric(v, share=True) for v in inner(changed)])
    yield coverage(found.units, "effect", [Metric(v, down=d) for v, d in zip(inner(answers), inner(third))])
    yield coverage(found.units, "effect, logit", [Metric(v) for v in inner(logits - logits_third)])
    yield half_effect(found.units, logits - logits_third)


def half_effect(units: Units, effects: np.ndarray) -> Coverage:
    """Return how often the half-effect layer's interval holds that of the mean curve, where there is one."""
    mean = effects.mean(axis=(0, 1))
    truth = float(np.interp(0, mean[0] / 2 - mean, range(LAYERS)))
    below = np.stack([e[:, :1] / 2 - e for e in effects], axis=1)
    found = [crossing(one, range(LAYERS)) for one in each(estimate(below, units.design))]
    shown = [f for f in found if not np.isnan(f.place)]
    held = [f.low - 0.5 / 20 <= truth <= f.high + 0.5 / 20 for f in shown]  # places are looked at in twentieths
    return Coverage("half-effect layer", float(np.mean(held)) if len(held) > len(found) / 10 else np.nan)


def each(of: ClusteredMeans) -> list[ClusteredMeans]:
    """Return the estimate of each result alone."""
    at = [slice(i, i + 1) for i in range(len(of.mean))]
    return [replace(of, mean=of.mean[i], se=of.se[i], correlation=of.correlation[i], df=of.df[i]) for i in at]


def lines(draws: int) -> Iterator[str]:
    for design in designs.DESIGNS:
        for name, gains in GAINS.items():
            found = list(of_clips(design, gains, draws))
            for kind in KINDS:
                found += of_pairs(design, kind, gains, draws)
            yield f"| {design}{name} | {' | '.join(_range(found, what) for what in WHAT)} |"


WHAT = ("share", "voice - words", "effect", "effect, logit", "half-effect layer")


def _range(found: list[Coverage], what: str) -> str:
    held = [f.held for f in found if f.what == what or f.what.startswith(f"{what}:")]
    low, high = np.nanmin(held), np.nanmax(held)
    return f"{low:.3f}" if low == high else f"{low:.3f}-{high:.3f}"


def probe_lines(draws: int) -> Iterator[str]:
    """Yield how often intervals of a probe's accuracy hold its mean over draws, at each strength of what it decodes."""
    for design in probed.DESIGNS:
        for label, found in probed.coverage(design, draws).groupby("label", sort=False):
            held = ", ".join(f"{h:.3f}" for h in found.held)
            yield f"| {design}, {label} | {', '.join(f'{a:.2f}' for a in found.accuracy)} | {held} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--only", choices=("designs", "probes"), help="one part of it")
    args = parser.parse_args()
    if args.only != "probes":
        print(f"| texts x speakers | {' | '.join(WHAT)} |\n|---|{'---|' * len(WHAT)}")
        for line in lines(args.draws):
            print(line, flush=True)
    if args.only != "designs":
        print("\n| texts x speakers | accuracy of the probe | intervals hold |\n|---|---|---|")
        for line in probe_lines(args.draws // 20):
            print(line, flush=True)


if __name__ == "__main__":
    main()
