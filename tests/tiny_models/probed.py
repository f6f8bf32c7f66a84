"""Simulated states with a known truth: what of them is words, voice, text, speaker; few texts and speakers, unequal labels."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.stats.clustered_means import Floats
from common.stats.clusters import MIN_LEVELS, Design, memberships
from common.stats.layer_tables import Metric, layer_table
from common.stats.probes import Plan, Targets, decoded, plan, products, widening
from common.stats.units import Units

WIDTH = 40
STRENGTHS = (0.0, 3.0, 6.0)  # of the labels' directions, at three layers
CHANCES = np.array([0.35, 0.25, 0.2, 0.12, 0.08])  # of the labels
DESIGNS = {"20 x 6": (20, 6, 300), "40 x 2": (40, 2, 240), "15 x 10": (15, 10, 300), "200 x 30": (200, 30, 300)}


@dataclass(frozen=True)
class Clips:
    """Who says what: codes [clip] of texts, speakers, and the labels of words and voice."""

    texts: np.ndarray
    speakers: np.ndarray
    words: np.ndarray
    voice: np.ndarray

    def targets(self) -> Targets:
        both = np.stack([self.words, self.voice], axis=1)
        return Targets(both, both[:, ::-1], np.array([5, 5]))

    def plan(self) -> Plan:
        return plan(*(x.astype(str) for x in (self.texts, self.speakers, self.words)), seed=0)

    def decoded(self, states: np.ndarray) -> Floats:
        return decoded(products(states), self.targets(), self.plan())


def clips(design: str, *, seed: int = 1) -> Clips:
    """Return clips of a design: speakers in unequal numbers, labels as often as `CHANCES`, each of two texts at least."""
    rng, (texts, speakers, n) = np.random.default_rng(seed), DESIGNS[design]
    share = 1 / np.arange(1, speakers + 1)
    t, s = (
        rng.permutation(np.concatenate([np.arange(k), rng.choice(k, size=n - k, p=p)]))
        for k, p in ((texts, None), (speakers, share / share.sum()))
    )
    words, voice = (
        rng.permutation(np.concatenate([np.repeat(np.arange(5), least), rng.choice(5, size=k - 5 * least, p=CHANCES)]))
        for k, least in ((texts, 2), (n, 4))
    )
    return Clips(t, s, words[t], voice)


def states(rng: np.random.Generator, of: Clips, *, words: float, voice: float, speakers: Floats, text: float = 1.0) -> Floats:
    """Return states [clip, WIDTH]: the labels' directions, that long, and what each text, the `speakers` and each clip add."""
    known = np.random.default_rng(0).normal(size=(2, 5, WIDTH)) / np.sqrt(WIDTH)
    effects = text * rng.normal(size=(of.texts.max() + 1, WIDTH))[of.texts] + speakers[of.speakers]
    return words * known[0, of.words] + voice * known[1, of.voice] + effects + rng.normal(size=(len(of.texts), WIDTH))


def coverage(design: str, draws: int) -> pd.DataFrame:
    """Return, for each label and strength, over draws of texts, speakers (where they are many) and clips: the mean accuracy, how
    often its interval `held` it, and how often it lay above and below a guess altogether.
    """
    of = clips(design)
    levels = of.speakers.max() + 1
    same = 0.7 * np.random.default_rng(5).normal(size=(levels, WIDTH))
    conflict = of.words != of.voice
    nothing = pd.DataFrame(index=range(int(conflict.sum())))
    clusters = {"texts": memberships(of.texts[conflict]), "speakers": memberships(of.speakers[conflict])}
    units = Units(nothing, nothing, np.arange(len(STRENGTHS)), Design(clusters, of.words[conflict][:, None]))
    widen = [widening(of.texts[conflict].tolist(), labels[conflict].tolist()) for labels in (of.words, of.voice)]
    tables: dict[str, list[pd.DataFrame]] = {"words": [], "voice": []}
    for draw in range(draws):
        rng = np.random.default_rng(100 + draw)
        speakers = same if levels < MIN_LEVELS else 0.7 * rng.normal(size=(levels, WIDTH))
        right = np.stack([of.decoded(states(rng, of, words=k, voice=k, speakers=speakers)) for k in STRENGTHS], axis=-1)
        for place, label in enumerate(tables):
            metrics = {"accuracy": Metric(right[conflict, place], share=True)}
            tables[label].append(layer_table(units, metrics, widen=widen[place]).assign(strength=STRENGTHS))
    return pd.concat([_counted(pd.concat(t)).assign(design=design, label=label) for label, t in tables.items()])


def _counted(t: pd.DataFrame) -> pd.DataFrame:
    truth = t.groupby("strength").accuracy.transform("mean")
    found = {
        "accuracy": t.accuracy,
        "held": (t.accuracy_lo <= truth) & (truth <= t.accuracy_hi),
        "above": t.accuracy_lo > 0.2,
        "below": t.accuracy_hi < 0.2,
    }
    return pd.DataFrame(found).groupby(t.strength.to_numpy()).mean().rename_axis("strength").reset_index()
