"""Over all possible pairs the effect on a planted model is what its rule says; the difference to random donors is not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from activation_patching.span.effects import FEWEST, against_donors, matched, same_pairs, transfer
from activation_patching.span.tables import tables_of
from common.stats.units import pair_units
from tests.tiny_models import planted
from tests.tiny_models.planted import INNER, Rule

NEUTRAL, HAPPY, SAD, ANGRY, SURPRISED = range(5)
COUNTS, VOICES = (6, 3, 2, 5, 2), (2, 1, 1, 3, 1)  # of texts and of voices, where labels are unbalanced


def prior(words: np.ndarray) -> np.ndarray:
    """Return angry, unless the words are happy or sad."""
    return np.where((words == HAPPY) | (words == SAD), words, ANGRY)


def neutral_words(c: pd.DataFrame) -> np.ndarray:
    """Return the words, and where they are neutral the voice, in one text of three."""
    return np.where((c.words == NEUTRAL) & (c.number == 0), c.voice, c.words)


@dataclass(frozen=True)
class Planted:
    """A rule, the clips it is tried on, and (to target, to third) that it gives where the span is the source, per kind."""

    rule: Rule
    semantic: tuple[float, float]
    prosody: tuple[float, float]
    clips: dict[str, Any] = field(default_factory=dict)


def brought(answer: Callable[[int], int]) -> tuple[float, float]:
    """Return to target and to third of semantic pairs of unbalanced labels, where the donor's words are answered with `answer`.

    A pair of words a and t with the voice s is there COUNTS[a] x COUNTS[t] x VOICES[s]^2 times, for each speaker.
    """
    weight = {(a, t, s): COUNTS[a] * COUNTS[t] * VOICES[s] ** 2 for a, t, s in permutations(range(5), 3)}
    target = third = 0.0
    for (a, t, s), n in weight.items():
        others = {x: COUNTS[x] for x in range(5) if x not in (a, t, s)}
        target += n * (answer(t) == t)
        third += n * sum(m for x, m in others.items() if answer(x) == t) / sum(others.values())
    return target / sum(weight.values()), third / sum(weight.values())


def always_angry() -> float:
    """Return the share of prosody pairs of unbalanced labels whose target is angry and whose words are answered with it."""
    pairs = [(w, t, COUNTS[w] * VOICES[a] * VOICES[t]) for w, a, t in permutations(range(5), 3)]
    return sum(n for w, t, n in pairs if t == ANGRY and w not in (HAPPY, SAD)) / sum(n for _, _, n in pairs)


MODELS = {
    "hears words only": Planted(lambda c: c.words.to_numpy(), (1, 0), (0, 0)),
    "hears the voice only": Planted(lambda c: c.voice.to_numpy(), (0, 0), (1, 0)),
    # the target comes where the shared label is 0; y comes from y - s, one of two third labels in half of the cells with s > 0
    "both, by interaction": Planted(lambda c: ((c.words + c.voice) % 5).to_numpy(), (1 / 5, 4 / 5 / 4), (1 / 5, 4 / 5 / 4)),
    "the voice where the words are neutral": Planted(
        lambda c: np.where(c.words == NEUTRAL, c.voice, c.words), (4 / 5, 0), (1 / 5, 0), {"texts": 3}
    ),
    "the voice in one neutral text of three": Planted(neutral_words, (4 / 5 + 1 / 5 * 2 / 3, 0), (1 / 5 / 3, 0), {"texts": 3}),
    "a strong prior, unbalanced labels": Planted(
        lambda c: prior(c.words.to_numpy()),
        brought(lambda x: int(prior(np.array(x)))),
        (always_angry(), always_angry()),
        {"texts": COUNTS, "voices": VOICES},
    ),
    # surprised comes in a quarter of the pairs in which it is third: with sad as one of two others in half of the cells
    "mishears sad words as surprised": Planted(
        lambda c: np.where(c.words == SAD, SURPRISED, c.words), (4 / 5, 1 / 5 / 4), (1 / 5 / 4, 1 / 5 / 4)
    ),
    "ignores the audio": Planted(lambda c: np.full(len(c), ANGRY), (1 / 5, 1 / 5), (1 / 5, 1 / 5)),
    "answers by duration": Planted(lambda c: c.number.to_numpy() % 5, (1 / 5, 1 / 5), (1 / 5, 1 / 5)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_effect_of_a_planted_model_is_what_its_rule_says(name: str) -> None:
    model = MODELS[name]
    table = planted.clips(**model.clips)
    for kind in ("semantic", "prosody"):
        rows = planted.patches(table, model.rule, kind)
        tables = tables_of(rows)
        target, third = getattr(model, kind)
        where_carried = tables["effects"].iloc[1]
        found = (where_carried.to_target, where_carried.to_third, where_carried.effect, where_carried.effect_logit)
        assert found == pytest.approx((target, third, target - third, target - third)), kind
        (summary,) = tables["summary"].itertuples()
        assert summary.kept == 1 and summary.baseline == "third labels"
        assert summary.effect == pytest.approx(INNER * (target - third)), kind
        assert summary.effect_lo < summary.effect < summary.effect_hi or abs(summary.effect) < 1e-9
        assert tables["effects"].effect.iloc[-1] == pytest.approx(0, abs=1e-9)  # by construction, whatever the habit


def test_the_old_difference_to_random_donors_says_that_what_does_nothing_does_harm() -> None:
    """A random donor's words are the target in a fifth of the clips, whatever the pair is about: -.11, where the effect is 0.

    And -.075 where the voice works: what is heard of it is less than the words that a random donor brings.
    """
    n = {name: len(planted.clips(**MODELS[name].clips)) for name in MODELS}
    few = "the voice in one neutral text of three"
    words = n[few] / 5
    random = 4 / 5 * (words + words / 3 / 4) + 1 / 5 * (words * 2 / 3)  # of targets other than neutral; of neutral
    expected = {
        "hears words only": (-n["hears words only"] / 5 / (n["hears words only"] - 1), -0.11),
        few: (1 / 5 / 3 - random / (n[few] - 1), -0.075),
    }
    for name, (formula, rounded) in expected.items():
        model = MODELS[name]
        table = planted.clips(**model.clips)
        old = INNER * (model.prosody[0] - planted.share_of_random_donors(table, model.rule, "prosody"))
        (summary,) = tables_of(planted.patches(table, model.rule, "prosody"))["summary"].itertuples()
        assert old == pytest.approx(INNER * formula) and old == pytest.approx(rounded, abs=0.003)
        assert summary.effect == pytest.approx(INNER * model.prosody[0])  # 0, and above 0


@pytest.mark.parametrize(("labels", "kept"), [(3, 0), (4, 1), (5, 1)])
def test_where_clips_name_every_label_donors_with_the_same_labels_are_the_baseline(labels: int, kept: int) -> None:
    table = planted.clips(labels=labels, texts=3)
    for kind, expected in (("semantic", INNER), ("prosody", 0)):
        rule = MODELS["hears words only"].rule
        real = planted.patches(table, rule, kind, labels=labels)
        stand_ins = planted.same_labels_donors(table, kind)
        control = planted.patches(table, rule, kind, labels=labels, control="same_labels_donor", stand_ins=stand_ins)
        assert transfer(pair_units(real)).kept == kept
        tables = tables_of(pd.concat([control, real]))
        (summary,) = tables["summary"].itertuples()
        assert summary.baseline == ("third labels" if kept else "same-labels donors") and summary.kept == 1
        assert summary.effect == pytest.approx(expected)
        for found in (tables["effects"], tables["summary"]):
            np.testing.assert_allclose(found.effect, found.to_target - found.to_third, atol=1e-12)
            np.testing.assert_allclose(found.effect_logit, found.logit_target - found.logit_third, atol=1e-12)
        alone = tables_of(real)["summary"].iloc[0]  # without such donors there is nothing to say
        assert pd.isna(alone.effect) == (not kept) and alone.kept == kept


def test_two_labels_name_every_label_where_a_pair_has_a_congruent_clip() -> None:
    """Words a and b with one voice a: recipient and donor name both labels, so no label is left."""
    named = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 1], [1, 1, 0]])
    said = np.zeros((4, 2, 1))
    found = matched(named, said, said)
    assert found.kept == 0 and np.isnan(found.to_target).all()


def test_matched_by_hand() -> None:
    """Target, shared, own label. Own labels decide where five third pairs have them, else all that share the shared label."""
    alike, other = [(3, 0, 2)] * FEWEST, [(3, 0, 4)] * 2  # label 1 is third in both
    named = np.array([(1, 0, 2), (1, 0, 2), (1, 0, 4), (2, 0, 1), *alike, *other])
    said = np.zeros((len(named), 5, 1))
    said[:, 0] = 1
    said[0, :, 0] = np.eye(5)[1]
    said[[4, 5], :, 0] = np.eye(5)[1]  # two of the five that are alike
    said[9, :, 0] = np.eye(5)[1]  # one of the two others
    found = matched(named, said, 2 * said)
    # y = 1: two targets with rate 2/5; one with few alike, so 3/7. y = 3: 5 + 2 targets, whose third pairs are four: 0. y = 2 has
    # for its one target the third pairs (1, 0, 4) and (3, 0, 4), none of which says 2.
    assert found.to_target.mean() == pytest.approx(1 / 11 + 0) and found.kept == 1
    assert found.to_third.mean() == pytest.approx((2 * 2 / 5 + 3 / 7) / 11)
    assert found.logit_target.mean() == pytest.approx(2 / 11)


def test_third_labels_have_the_weights_of_the_targets() -> None:
    """A habit of one label moves neither: its rate is the same in both, however unequal the cells are."""
    rng = np.random.default_rng(0)
    named = np.array([rng.permutation(5)[:3] for _ in range(400)])
    named = named[rng.random(400) < (0.2 + 0.2 * named[:, 0])]  # some targets are rare
    said = np.zeros((len(named), 5, 1))
    said[:, ANGRY] = 1
    found = matched(named, said, said)
    assert found.to_target.mean() == pytest.approx((named[:, 0] == ANGRY).mean())
    assert (found.to_target - found.to_third).mean() == pytest.approx(0, abs=1e-12)


def test_the_values_of_pairs_are_the_derivatives_of_the_effect_by_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matched by the shared label alone, as if no cell had enough pairs of the same own label."""
    monkeypatch.setattr("activation_patching.span.effects.FEWEST", 1000)
    rng = np.random.default_rng(1)
    named = np.array([rng.permutation(4)[:3] for _ in range(60)])
    said = rng.random((60, 4, 2))

    def of_weighted(weight: np.ndarray) -> np.ndarray:
        top, total = 0.0, 0.0
        for y in range(4):
            for s in range(4):
                targets = (named[:, 0] == y) & (named[:, 1] == s)
                thirds = (named != y).all(axis=1) & (named[:, 1] == s)
                if targets.any() and thirds.any():
                    rate = np.average(said[thirds, y], axis=0, weights=weight[thirds])
                    top = top + (weight[targets, None] * (said[targets, y] - rate)).sum(axis=0)
                    total += weight[targets].sum()
        return top / total

    values = matched(named, said, said)
    effect = (values.to_target - values.to_third).mean(axis=0)
    np.testing.assert_allclose(effect, of_weighted(np.ones(60)))
    for pair in range(0, 60, 7):
        weight = np.ones(60)
        weight[pair] += 1e-6
        slope = (of_weighted(weight) - effect) / 1e-6 * 60
        np.testing.assert_allclose((values.to_target - values.to_third)[pair] - effect, slope, atol=1e-4)


def test_pairs_of_controls_are_compared_with_their_own_real_pairs() -> None:
    """b1 sorts before b10, and b10|... before b1|...: the order of ids is not that of pairs."""
    table = planted.clips(texts=3)
    real = planted.patches(table, MODELS["hears words only"].rule, "semantic")
    control = planted.patches(table, MODELS["hears the voice only"].rule, "semantic", control="random_subspace", stand_ins=None)
    control["pair_id"] = control.pair_id + "|random_subspace"
    fewer = control[control.true_pair_id.str.len() % 2 == 0]
    units = same_pairs({"none": pair_units(real), "random_subspace": pair_units(fewer)})
    one, other = units.values()
    assert one.unit_rows.true_pair_id.tolist() == other.unit_rows.true_pair_id.tolist() == sorted({*fewer.true_pair_id})
    donors = against_donors(pair_units(real), pair_units(fewer))
    assert donors.kept == pytest.approx(fewer.pair_id.nunique() / real.pair_id.nunique())
    assert donors.to_target.mean(axis=0)[1] == pytest.approx(1) and donors.to_third.mean(axis=0)[1] == pytest.approx(0)
