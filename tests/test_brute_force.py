"""Intervals of the tables again from the rows, the long way: leave every cluster out, compute anew, nothing linearised."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from activation_patching.paired import paired_layers
from scipy import stats

from activation_patching.tables import contrast_layers, patch_layers
from logit_lens.tables import lens_layers
from tests import planted
from tests.planted import LABELS, Rule

Figure = Callable[[pd.DataFrame], float]  # of rows of one layer with a column `weight`


def mean(column: str) -> Figure:
    return lambda rows: float((rows[column] * rows.weight).sum() / rows.weight.sum())


def ratio(top: str, bottom: str) -> Figure:
    return lambda rows: float((rows[top] * rows.weight).sum() / (rows[bottom] * rows.weight).sum())


def leave_out(rows: pd.DataFrame, gone: pd.Series, strata: list[str], figure: Figure) -> float:
    """Return a figure without some rows; those of their stratum that stay stand for them."""
    key = rows[strata].agg("|".join, axis=1)
    left = rows[~gone].assign(weight=(key.map(key.value_counts()) / key.map(key[~gone].value_counts()))[~gone])
    return figure(left)


def variance(
    rows: pd.DataFrame,
    clusters: list[tuple[frozenset, float]],
    member: Callable[[frozenset], pd.Series],
    strata: list[str],
    figure: Figure,
) -> float:  # type: ignore[type-arg]
    whole = figure(rows.assign(weight=1.0))
    return sum((n - 1) / n * (leave_out(rows, member(c), strata, figure) - whole) ** 2 for c, n in clusters)


def expected(depends: pd.Series, clusters: list[frozenset]) -> np.ndarray:  # type: ignore[type-arg]
    """Return what deleting each cluster gives for the variance of a mean: of effects of the texts, and of the units' own."""
    texts = sorted({t for unit in depends for t in unit})
    holds = np.array([[t in unit for t in texts] for unit in depends], dtype=float)  # [unit, text]
    found = np.zeros(2)
    for cluster in clusters:
        kept = np.array([not cluster <= unit for unit in depends])
        moved = kept / kept.sum() - 1 / len(kept)  # weights of the units in the change of the mean
        found += (len(clusters) - 1) / len(clusters) * np.array([((moved @ holds) ** 2).sum(), (moved**2).sum()])
    return found


def half_width(rows: pd.DataFrame, roles: list[str], strata: list[str], figure: Figure, *, labels: list[str]) -> float:
    """Return the standard error over the texts in `roles` and its degrees of freedom.

    Pairs of texts count twice, and hold some of the texts' own effects: the two parts are weighted so that a variance of the
    texts' effects and one of the units' own come out as they are.
    """
    of_text = {t: label for role, name in zip(roles, labels) for t, label in zip(rows[role], rows[name])}
    alike = {label: sum(v == label for v in of_text.values()) for label in set(of_text.values())}
    depends = rows[roles].apply(frozenset, axis=1)
    singles = [(frozenset([t]), alike[label]) for t, label in of_text.items()]

    def member(cluster: frozenset) -> pd.Series:  # type: ignore[type-arg]
        return depends.map(lambda texts: cluster <= texts)

    sizes = {t: sum(t in texts for texts in depends) for t in of_text}
    first = total = variance(rows, singles, member, strata, figure)
    pairs = {texts for texts in depends if len(texts) == 2}
    if pairs:
        own = variance(rows, [(p, len(pairs)) for p in pairs], member, strata, figure)
        whole = expected(depends, [frozenset({t}) for t in of_text]) - expected(depends, list(pairs))
        truth = [sum(size**2 for size in sizes.values()) / len(rows) ** 2, 1 / len(rows)]
        a, b = np.linalg.solve(np.stack([whole, expected(depends, list(pairs))], axis=1), truth)
        first = a * (first - own) + b * own
        total = max(first, own)
    squares = {label: sum(sizes[t] ** 2 for t in of_text if of_text[t] == label) for label in alike}
    effective = {label: sum(sizes[t] for t in of_text if of_text[t] == label) ** 2 / squares[label] for label in alike}
    own_df = sum(squares.values()) ** 2 / sum(squares[label] ** 2 / (effective[label] - 1) for label in alike)
    return float(np.sqrt(total)), own_df / (first / total) ** 2  # type: ignore[return-value]


RULE = Rule(words=2, voice=2.5)
CLIPS = planted.clips(np.random.default_rng(3), RULE, texts=20)
LENS = planted.lens(CLIPS, RULE)
PATCHES = planted.patches(np.random.default_rng(4), CLIPS, RULE, n=70)
LENS_LAYER, PATCH_LAYER = 4, 3


def one_layer_reach(df: float) -> float:
    return float(stats.t.isf(0.025, df))


def test_margin_of_the_lens() -> None:
    rows = LENS[LENS.layer == LENS_LAYER]
    rows = rows[rows.semantic_label != rows.prosody_label]
    se, df = half_width(rows, ["text_id"], ["semantic_label"], mean("margin"), labels=["semantic_label"])
    table = lens_layers(LENS[LENS.layer == LENS_LAYER], seed=0).iloc[0]
    assert table.margin == pytest.approx(rows.margin.mean()) and df == pytest.approx(15)
    assert table.margin_hi - table.margin == pytest.approx(one_layer_reach(df) * se, rel=1e-6)


def patched(control: str = "none", kind: str = "prosody") -> pd.DataFrame:
    rows = PATCHES[(PATCHES.control == control) & (PATCHES.kind == kind) & (PATCHES.layer == PATCH_LAYER)]
    moved = (rows.pred_base != rows.target) & (rows.flip_from_base == 1)
    return rows.assign(moved=moved.astype(float), came=(moved & (rows.flip_to_target == 1)).astype(float)).reset_index(drop=True)


ROLES, WORDS = ["recipient_text_id", "donor_text_id"], ["recipient_semantic_label", "donor_semantic_label"]


@pytest.mark.parametrize("kind", ("prosody", "semantic"))
def test_delta_and_a_ratio_of_patches(kind: str) -> None:
    rows = patched(kind=kind)
    table = patch_layers(PATCHES[PATCHES.layer == PATCH_LAYER], seed=0)
    table = table[(table.kind == kind) & (table.control == "none")].iloc[0]
    if kind == "semantic":  # few pairs of each two labels: where a text has all of them, strata are coarser
        whole = (
            rows.groupby(WORDS).recipient_text_id.agg(lambda t: len(set(t)) > 1).all()
            and rows.groupby(WORDS).donor_text_id.agg(lambda t: len(set(t)) > 1).all()
        )
        strata = WORDS if whole else WORDS[:1]
    else:
        strata = WORDS[:1]
    se, df = half_width(rows, ROLES, strata, mean("delta_logit"), labels=WORDS)
    assert table.delta_logit_hi - table.delta_logit == pytest.approx(one_layer_reach(df) * se, rel=1e-6)
    figure = ratio("came", "moved")
    assert table.directedness == pytest.approx(figure(rows.assign(weight=1.0)))
    se, df = half_width(rows, ROLES, strata, figure, labels=WORDS)
    p, reach = table.directedness, one_layer_reach(df)
    n = p * (1 - p) / se**2
    wilson = (p + reach**2 / (2 * n) + reach * np.sqrt(p * (1 - p) / n + reach**2 / (4 * n**2))) / (1 + reach**2 / n)
    assert table.directedness_hi == pytest.approx(wilson, rel=1e-6)


def test_paired_difference_is_that_of_the_same_pairs() -> None:
    table = paired_layers(PATCHES, seed=0)
    for kind in ("semantic", "prosody"):
        for control in ("same_labels_donor", "random_donor", "silence"):
            real, other = patched(kind=kind).set_index("pair_id"), patched(control, kind)
            other.index = [name.split("|")[0] for name in other.pair_id]
            row = table[(table.kind == kind) & (table.control_donor == control) & (table.layer == PATCH_LAYER)].set_index(
                "outcome"
            )
            for outcome, column in (("flips", "flip_to_target"), ("delta", "delta_logit")):
                differences = [real[column][name] - other[column][name] for name in other.index]
                assert row.difference[outcome] == pytest.approx(np.mean(differences)) and row.n[outcome] == len(other)
            came = real.came.sum() / real.moved.sum() - other.came.sum() / other.moved.sum()
            assert row.difference["directedness"] == pytest.approx(came)


def test_contrast_is_the_difference_of_the_kinds() -> None:
    rows = pd.concat([patched(kind="semantic"), patched()], ignore_index=True)
    table = contrast_layers(PATCHES[(PATCHES.layer == PATCH_LAYER) & (PATCHES.control == "none")], seed=0).iloc[0]

    def figure(some: pd.DataFrame) -> float:
        kinds = [some[some.kind == kind] for kind in ("semantic", "prosody")]
        return float(np.subtract(*((k.delta_logit * k.weight).sum() / k.weight.sum() for k in kinds)))

    assert table.delta_logit == pytest.approx(figure(rows.assign(weight=1.0)))
    for strata in (WORDS, WORDS[:1]):
        se, df = half_width(rows, ROLES, strata, figure, labels=WORDS)
        if table.delta_logit_hi - table.delta_logit == pytest.approx(one_layer_reach(df) * se, rel=1e-6):
            return
    raise AssertionError("neither stratification gives the table's interval")


def test_shuffled_answers_by_shuffling_them() -> None:
    rows = LENS[(LENS.layer == 8) & (LENS.semantic_label != LENS.prosody_label)].reset_index(drop=True)
    rng = np.random.default_rng(0)
    wins = []
    for _ in range(400):
        order = rows.groupby("semantic_label").winner.transform(lambda w: rng.permutation(w))
        wins.append((order == rows.prosody_label).mean())
    table = lens_layers(LENS[LENS.layer == 8], seed=0).iloc[0]
    assert table.win_prosody_null == pytest.approx(np.mean(wins), abs=0.01) and len(LABELS) == 5
