"""Estimate the effect of a patch: answers with the target, minus answers with third labels.

A pair names the target, the label that the recipient has in its place, and the label that both clips share. The others are
*third labels*: they are the baseline, on the same rows. What disturbance, habit or silence do, they do to third labels too.

Like is compared with like. In each *cell* (a label y; the recipient's two labels) the rate of y among the pairs whose target is y
is held against the rate of y among the pairs in which y is a third label. Where a cell has few of these, recipients of any label
are taken that have the same shared label. The mean over the cells is weighted with their target pairs. Pairs without third pairs
are left out; `kept` is the share of pairs that is left.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from common.clips.pairs import SHARED_LABEL
from common.stats.clustered_means import Floats, estimate
from common.stats.crossings import Crossing, crossing
from common.stats.intervals import reach_of
from common.stats.layer_tables import Metric
from common.stats.units import Units, label_codes, labels_of, pair_units

FEWEST = 5  # third pairs of a cell
LEAST_KEPT = 0.8  # share of the pairs: with fewer in cells that have third pairs, no sentence is made of an effect


@dataclass(frozen=True)
class Transfer:
    """What each pair adds to the mean: values [pair, layer] of answers (`to_target`, `to_third`) and of logits.

    `kept`: the share of pairs whose cell has third pairs. All values are nan where no cell has.
    """

    to_target: Floats
    to_third: Floats
    logit_target: Floats
    logit_third: Floats
    kept: float

    def mean_over(self, layers: slice) -> "Transfer":
        """Return the same for the mean over some layers, as one layer."""
        names = ("to_target", "to_third", "logit_target", "logit_third")
        return replace(self, **{name: getattr(self, name)[:, layers].mean(axis=1, keepdims=True) for name in names})

    @property
    def effect(self) -> Floats:
        return self.to_target - self.to_third

    @property
    def effect_logit(self) -> Floats:
        return self.logit_target - self.logit_third


def transfer(units: Units) -> Transfer:
    """Return what the pairs of one kind transfer, matched by cell."""
    labels, kind = labels_of(units.rows), str(units.unit_rows.kind.iloc[0])
    columns = ("target", f"recipient_{SHARED_LABEL[kind]}", f"recipient_{kind}_label")
    named = np.stack([label_codes(units.unit_rows[c], labels) for c in columns], axis=1)  # [pair, (target, shared, own)]
    return matched(named, answered(units, "pred_patch"), rise(units))


def answered(units: Units, column: str) -> Floats:
    """Return 1 where a label is the answer in a column of the rows, else 0, [unit, label, layer]."""
    labels = labels_of(units.rows)
    answer = label_codes(units.rows[column], labels).reshape(len(units.unit_rows), -1)
    return (answer[:, None, :] == np.arange(len(labels))[:, None]).astype(float)


def rise(units: Units) -> Floats:
    """Return how far the logit of each label rises above the clip's own, [unit, label, layer]."""
    return np.stack([units.grid(f"logit_{x}") - units.grid(f"base_{x}") for x in labels_of(units.rows)], axis=1)


def against_donors(units: Units, control: Units) -> Transfer:
    """Return what the pairs transfer beyond donors with the recipient's own labels, for clips that name every label.

    The baseline of a pair is its own target under the `control`; `kept` is the share of the pairs that have one.
    """
    at = pd.Index(control.unit_rows.true_pair_id).get_indexer(units.unit_rows.true_pair_id)
    there = (at >= 0)[:, None]
    share = there.mean() or np.nan

    def values(of: Units, column: str) -> Floats:
        found = of.grid(column).astype(float) if of is units else of.grid(column).astype(float)[at]
        mean = np.where(there, found, 0).mean(axis=0) / share
        return np.where(there, found - mean, 0) / share + mean

    answers = values(units, "flip_to_target"), values(control, "flip_to_target")
    return Transfer(*answers, values(units, "delta_logit"), values(control, "delta_logit"), float(there.mean()))


def same_pairs(of: dict[str, Units]) -> dict[str, Units]:
    """Return the units of each control with the pairs alone that all of them have."""
    ids = set.intersection(*({*units.unit_rows.true_pair_id} for units in of.values()))
    return {control: pair_units(units.rows[units.rows.true_pair_id.isin(ids)]) for control, units in of.items()}


def matched(named: np.ndarray, said: Floats, rises: Floats) -> Transfer:
    """Return the transfer from codes of target, shared and own label `named` [pair, 3]; `said`, `rises` [pair, label, layer].

    Each pair's value is the mean plus its influence on it (the derivative with respect to the pair's weight, times the number
    of pairs): the rates of the third labels are estimated too, and that is in the values.
    """
    pairs, labels, layers = said.shape
    cells = [cell for y in range(labels) for cell in _cells(named, y)]
    weight = sum(len(targets) for _, targets, _ in cells)

    def values(measured: Floats) -> tuple[Floats, Floats]:
        if not weight:
            return np.full((pairs, layers), np.nan), np.full((pairs, layers), np.nan)
        rates = [measured[thirds, y].mean(axis=0) for y, _, thirds in cells]
        mean_hit = sum(measured[targets, y].sum(axis=0) for y, targets, _ in cells) / weight
        mean_usual = sum(len(targets) * rate for (_, targets, _), rate in zip(cells, rates)) / weight
        hit, usual = np.zeros((2, pairs, layers))
        for (y, targets, thirds), rate in zip(cells, rates):
            hit[targets] += (measured[targets, y] - mean_hit) * pairs / weight
            usual[targets] += (rate - mean_usual) * pairs / weight
            usual[thirds] += (measured[thirds, y] - rate) * pairs / weight * len(targets) / len(thirds)
        return hit + mean_hit, usual + mean_usual

    return Transfer(*values(said), *values(rises), weight / max(1, pairs))


def _cells(named: np.ndarray, y: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return (y, pairs whose target is y, pairs in which y is third) that share the recipient's two labels.

    Targets whose cell has fewer than FEWEST third pairs are held against all of the same shared label, if there are any.
    """
    target, shared, own = named.T
    third = (named != y).all(axis=1)
    cells = []
    for s in np.unique(shared[target == y]):
        thirds, rest = np.flatnonzero(third & (shared == s)), []
        for a in np.unique(own[(target == y) & (shared == s)]):
            targets = np.flatnonzero((target == y) & (shared == s) & (own == a))
            alike = thirds[own[thirds] == a]
            if len(alike) >= FEWEST:
                cells.append((y, targets, alike))
            else:
                rest.append(targets)
        if rest and len(thirds):
            cells.append((y, np.concatenate(rest), thirds))
    return cells


def metrics_of(found: Transfer) -> dict[str, Metric]:
    """Return the metrics of a table of effects; `effect` is `to_target` less `to_third`, `effect_logit` the same in logits."""
    return {
        "to_target": Metric(found.to_target, share=True),
        "to_third": Metric(found.to_third, share=True),
        "effect": Metric(found.to_target, down=found.to_third),
        "logit_target": Metric(found.logit_target),
        "logit_third": Metric(found.logit_third),
        "effect_logit": Metric(found.effect_logit),
    }


def half_effect(units: Units, found: Transfer) -> Crossing:
    """Return from where on the effect on the logit is below half of that at the first layer; none where that is not shown."""
    effect = found.effect_logit[:, None]
    of = estimate(effect, units.design)
    if np.isnan(of.se[0]).any():
        return Crossing(reason=of.clusters)
    if not of.mean[0, 0] - reach_of(of)[0] * of.se[0, 0] > 0:
        return Crossing(reason="no effect on the logit is shown at the first layer")
    return crossing(estimate(effect[..., :1] / 2 - effect, units.design), units.layers)
