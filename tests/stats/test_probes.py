"""What is there is decoded, from where it is there; what only a text, a speaker or the other label tells is not."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from common.stats import probes
from common.stats.probes import Fold, Plan, Targets, decoded, products, widening
from tests.tiny_models.probed import WIDTH, Clips, states

NOBODY = np.zeros((50, WIDTH))


def crossed(texts: int = 20, speakers: int = 4, labels: int = 5) -> Clips:
    t, s, v = np.indices((texts, speakers, labels)).reshape(3, -1)
    return Clips(t, s, t % labels, v)


def naive(of: Clips) -> Plan:
    """Return folds that know nothing of texts and speakers."""
    apart = KFold(4, shuffle=True, random_state=0).split(of.texts)
    return tuple(Fold(learn, out, ()) for learn, out in apart)


def test_a_label_is_told_from_the_layer_where_it_is_there() -> None:
    of, rng = crossed(), np.random.default_rng(0)
    for length, (least, most) in ((0, (0.1, 0.3)), (8, (0.85, 1.0))):
        found = of.decoded(states(rng, of, words=length, voice=length, speakers=NOBODY))
        assert ((least <= found.mean(axis=0)) & (found.mean(axis=0) <= most)).all(), found.mean(axis=0)


def test_what_only_the_text_or_only_the_speaker_tells_is_at_chance_and_would_be_high_under_naive_folds() -> None:
    rng, right, fooled = np.random.default_rng(1), [], []
    for _ in range(2):
        t = np.repeat(np.arange(30), 8)
        s = np.tile(np.arange(20), 12)
        of = Clips(
            t, s, rng.permutation(np.arange(30) % 5)[t], rng.permutation(np.arange(20) % 5)[s]
        )  # labels of texts, of speakers
        x = states(rng, of, words=0, voice=0, speakers=rng.normal(size=(20, WIDTH)))
        right.append(of.decoded(x).mean(axis=0))
        fooled.append(decoded(products(x), of.targets(), naive(of)).mean(axis=0))
    print("apart", np.mean(right, axis=0), "naive", np.mean(fooled, axis=0))
    assert (np.abs(np.mean(right, axis=0) - 0.2) < 0.1).all()
    assert (np.mean(fooled, axis=0) > 0.45).all()


@pytest.mark.parametrize("congruent", [0.0, 0.5])
def test_a_probe_of_the_voice_does_not_read_the_words(congruent: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In conflict clips alone the words tell what the voice is not; with half of the clips congruent, what it often is."""
    rng = np.random.default_rng(2)
    t = np.repeat(np.arange(40), 10)
    words = t % 5
    voice = np.where(rng.random(len(t)) < congruent, words, (words + rng.integers(1, 5, size=len(t))) % 5)
    of = Clips(t, np.tile(np.arange(10), 40), words, voice)
    x = states(rng, of, words=12, voice=0, speakers=NOBODY, text=0.2)
    right, conflict = of.decoded(x), words != voice
    blind = replace(of.targets(), other=np.zeros((len(t), 2), dtype=int))
    reads = decoded(products(x), blind, of.plan())[conflict, 1].mean()
    print("voice", right[conflict, 1].mean(), "without regard to the words", reads)
    assert right[conflict, 0].mean() > 0.95 and abs(right[conflict, 1].mean() - 0.2) < 0.06
    assert reads < 0.1 or not congruent  # of conflict clips alone it could gain no more than .05


def test_the_values_are_those_of_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x, codes = rng.normal(size=(60, 25)) * rng.uniform(0.1, 9, 25), rng.integers(3, size=(60, 1))
    learn, out = np.arange(45), np.arange(45, 60)
    targets = Targets(codes, np.zeros((60, 1), dtype=int), np.array([3]))
    values = probes._values(products(x), targets, learn, out)[2, :, 0]
    scaled = StandardScaler().fit_transform(x) / np.sqrt(25)
    strength = probes.STRENGTHS[2] * ((scaled[learn] - scaled[learn].mean(axis=0)) ** 2).sum() / 45
    there = (codes[learn] == np.arange(3)).astype(float)
    wanted = Ridge(alpha=strength).fit(scaled[learn], there / there.mean(axis=0) - 1).predict(scaled[out])
    np.testing.assert_allclose(values, wanted, atol=1e-5)


def test_states_that_are_the_same_for_all_clips_are_a_guess() -> None:
    of = crossed(texts=10)
    found = of.decoded(np.tile(np.random.default_rng(0).normal(size=300).astype(np.float16) * 1000, (len(of.texts), 1)))
    np.testing.assert_allclose(found, 0.2)


def test_a_label_that_nothing_was_learned_of_is_never_told() -> None:
    targets = Targets(np.array([[0], [1], [0], [1], [2]]), np.zeros((5, 1), dtype=int), np.array([3]))
    x = np.random.default_rng(0).normal(size=(5, 8))
    found = decoded(products(x), targets, (Fold(np.arange(4), np.array([4]), ()),))
    assert found[4, 0] == 0 and (found[:4, 0] == 1 / 3).all()


def test_intervals_are_wider_where_labels_go_with_whole_texts() -> None:
    assert widening(["a", "a", "b"], ["x", "x", "y"]) > 1.5 and widening(["a", "a", "b", "b"], ["x", "y", "x", "y"]) == 1
