import itertools

import numpy as np
import pandas as pd
import pytest
from activation_patching.release import release_layer
from logit_lens.decision import decision_layer
from scipy import stats

from activation_patching.tables import contrast_layers, patch_layers
from logit_lens.tables import congruent_layers, label_table, lens_layers

LABELS = ("neutral", "happy", "sad", "angry", "surprised")


def lens_table(
    winners: list[list[str]], margins: list[list[float]], texts: str, *, semantic: str = "", prosody: str = "", speakers: str = ""
) -> pd.DataFrame:
    """Return rows of clips x layers; labels by their first letter (s: sad), words sad and voice happy unless told."""
    names = {label[0]: label for label in LABELS if label != "surprised"}
    rows = [
        {
            "sample_id": f"c{i}",
            "layer": layer,
            "winner": names[w],
            "margin": m,
            "text_id": text,
            "semantic_label": names[(semantic or "s" * 999)[i]],
            "prosody_label": names[(prosody or "h" * 999)[i]],
            "speaker": (speakers or "x" * 999)[i],
        }
        for i, text in enumerate(texts)
        for layer, (w, m) in enumerate(zip(winners[i], margins[i]))
    ]
    table = pd.DataFrame(rows)
    won = [table.winner == table.semantic_label, table.winner == table.prosody_label]
    return table.assign(outcome=np.select(won, ["semantic", "prosody"], "other"))


def test_lens_layers_by_hand() -> None:
    rows = lens_table([["n", "s"], ["h", "s"], ["n", "h"]], [[0, -1], [2, -3], [1, 1]], "aab")
    table = lens_layers(rows, seed=0)
    assert table.n.tolist() == [3, 3] and table.n_texts.tolist() == [2, 2] and table.n_speakers.tolist() == [1, 1]
    np.testing.assert_allclose(table.margin, [1, -1])
    np.testing.assert_allclose(table[["win_semantic", "win_prosody", "win_other"]], [[0, 1 / 3, 2 / 3], [2 / 3, 1 / 3, 0]])
    # l = 1: without text a the mean is 1, without b -2: 2 and -1 from -1, so variance 1/2 (4 + 1); clips of 2 and 1 are 1.8 texts
    half = stats.t.isf(0.025, 0.8) * np.sqrt(2.5)
    np.testing.assert_allclose(table[["margin_lo", "margin_hi"]].iloc[1], [-1 - half, -1 + half], rtol=1e-5)
    assert table.margin_lo[0] == table.margin_hi[0] == 1  # both texts agree
    assert table.clusters.tolist() == ["texts"] * 2 and table.held_fixed.tolist() == ["1 speaker"] * 2
    assert table.voice_lead.tolist() == [1 / 3, -1 / 3] and (table.voice_lead_lo < table.voice_lead).all()
    assert table.margin_band_lo[1] == pytest.approx(-1 - half, rel=0.1)  # one layer varies


def test_margin_prior_is_the_mean_over_all_shuffles_of_the_logits() -> None:
    rng = np.random.default_rng(1)
    rows = lens_table([["n"]] * 5, [[0]] * 5, "abcde", semantic="sshhn", prosody="hnana")
    logits = rng.normal(size=(5, 5))
    rows[[f"logit_{label}" for label in LABELS]] = logits
    place = {label: i for i, label in enumerate(LABELS)}
    words, voice = (rows[c].map(place).to_numpy() for c in ("semantic_label", "prosody_label"))
    rows["margin"] = logits[np.arange(5), voice] - logits[np.arange(5), words]
    shuffled = [
        np.mean([logits[j, voice[i]] - logits[j, words[i]] for i, j in enumerate(order)])
        for order in itertools.permutations(range(5))
    ]
    table = lens_layers(rows, seed=0)
    assert table.margin_prior[0] == pytest.approx(np.mean(shuffled))
    assert table.margin_excess[0] == pytest.approx(rows.margin.mean() - np.mean(shuffled))
    rows[[f"logit_{label}" for label in LABELS]] = np.tile(logits[:1], (5, 1))  # as at l = 0: the same for every clip
    rows["margin"] = logits[0, voice] - logits[0, words]
    table = lens_layers(rows, seed=0)
    assert abs(table.margin[0]) > 0.1 and abs(table.margin_excess[0]) < 1e-12 and abs(table.margin_excess_hi[0]) < 1e-9


def test_null_is_the_mean_over_all_permutations_within_semantic_label() -> None:
    rows = lens_table(
        [["h"], ["a"], ["h"], ["a"], ["n"], ["s"], ["a"]], [[0]] * 7, "abcdefg", semantic="sssshhh", prosody="haanasn"
    )
    wins = []
    for first in itertools.permutations(range(4)):
        for second in itertools.permutations(range(4, 7)):
            winner = rows.winner.iloc[[*first, *second]].to_numpy()
            wins.append((winner == rows.prosody_label).mean())
    table = lens_layers(rows, seed=0)
    assert table.win_prosody_null[0] == pytest.approx(np.mean(wins))
    assert table.win_prosody_excess[0] == pytest.approx(table.win_prosody[0] - np.mean(wins))


def test_always_the_same_label_is_not_the_voice() -> None:
    """A model that says angry whatever it hears wins with the voice wherever the voice is angry."""
    texts = "abcdefghijkl"
    rows = lens_table([["a"]] * 12, [[0]] * 12, texts, semantic="s" * 12, prosody="aaahhnnhnhnh")
    table = lens_layers(rows, seed=0)
    assert table.win_prosody[0] == table.win_prosody_null[0] == 0.25
    assert table.win_prosody_excess[0] == 0 and -0.5 < table.win_prosody_excess_lo[0] < 0 < table.win_prosody_excess_hi[0] < 0.5
    assert table.win_semantic[0] == table.win_semantic_null[0] == 0


def test_further_lens_columns() -> None:
    rows = lens_table([["n", "s"]] * 3, [[0, 1]] * 3, "abc")
    rows["best_rank"], rows["mass"], rows["kl"] = [1, 7, 3, 9, 8, 2], 0.25, [4.0, 0] * 3
    table = lens_layers(rows, seed=0)
    assert table.best_rank.tolist() == [3, 7] and table.mass.tolist() == [0.25] * 2 and table.kl.tolist() == [4, 0]
    assert "margin_spread" not in table and "kl_band_lo" in table


def test_congruent_clips_have_a_table_of_their_own() -> None:
    rows = lens_table([["s", "h"], ["h", "h"], ["h", "s"]], [[0, 0], [0, 0], [2, -2]], "abc", semantic="sss", prosody="ssh")
    table = congruent_layers(rows, seed=0)
    assert table.n.tolist() == [2, 2] and table.accuracy.tolist() == [0.5, 0]
    assert lens_layers(rows, seed=0).n.tolist() == [1, 1] and lens_layers(rows, seed=0).margin.tolist() == [2, -2]


def test_label_table_by_hand() -> None:
    rows = lens_table([["n", "s"], ["n", "h"], ["n", "n"], ["n", "s"]], [[0, 0]] * 4, "abcd", semantic="ssss", prosody="hhhs")
    table = label_table(rows, layer=1, seed=0).set_index(["semantic_label", "prosody_label"])
    np.testing.assert_allclose(
        table.loc[("sad", "happy"), ["win_semantic", "win_prosody", "win_other"]].astype(float), [1 / 3] * 3
    )
    assert table.loc[("sad", "happy"), ["n", "answers_happy", "answers_neutral", "answers_sad"]].tolist() == [3, 1, 1, 1]
    assert table.loc[("sad", "sad"), ["n", "win_semantic", "win_prosody"]].tolist() == [1, 1, 1]


def test_row_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    rows = lens_table([["n"] * 3] * 8, rng.normal(size=(8, 3)).tolist(), "aabbccdd")
    pd.testing.assert_frame_equal(lens_layers(rows, seed=0), lens_layers(rows.sample(frac=1, random_state=1), seed=0))


def test_a_missing_row_is_an_error_not_another_mean() -> None:
    rows = lens_table([["n"] * 2] * 2, [[0, 1], [2, 3]], "ab")
    for broken in (rows.iloc[:-1], pd.concat([rows.iloc[:-1], rows.iloc[:1]]), pd.concat([rows, rows])):
        with pytest.raises(ValueError, match="not every sample_id has each of the 2 layers once"):
            lens_layers(broken, seed=0)


def decided(wins: list[float], clips: int = 80, seed: int = 0) -> pd.DataFrame:
    """Return rows in which the voice wins with a chance per layer, else neither; the margin goes with it."""
    rng = np.random.default_rng(seed)
    won = rng.random((clips, len(wins))) < wins
    winners = [["h" if w else "n" for w in clip] for clip in won]
    return lens_table(winners, (4.0 * won - 2).tolist(), "abcdefghijklmnopqrst" * (clips // 20))


def test_decision_layer() -> None:
    chances = [0.9, 0.1, 0.3, 0.7, 0.9, 0.95]
    rows = decided(chances)
    (few,), (many,) = (decision_layer(r, seed=0).itertuples() for r in (rows, decided(chances, clips=400)))
    for found in (few, many):
        assert (found.side, found.reason) == ("prosody", "") and found.crossing_lo < found.crossing < found.crossing_hi
        assert abs(found.crossing - 2.5) < 0.4
    assert many.crossing_hi - many.crossing_lo < few.crossing_hi - few.crossing_lo
    assert (few.decision_layer, many.decision_layer) == (4, 3)  # more clips show it earlier: detection is no estimate
    swapped = rows.assign(semantic_label="happy", prosody_label="sad", margin=-rows.margin)
    swapped["outcome"] = swapped.outcome.replace("prosody", "semantic")
    assert decision_layer(swapped, seed=0).side.tolist() == ["semantic"]


def test_no_decision_without_an_effect() -> None:
    """Where the voice wins .37 and neither .47 nothing is decided, however sure the margin is; nor at l = 0, nor by a habit."""
    (found,) = decision_layer(decided([0.9, 0.37, 0.37, 0.4]), seed=0).itertuples()
    assert np.isnan(found.decision_layer) and np.isnan(found.crossing) and found.side == "none" and "neither" in found.reason
    (found,) = decision_layer(decided([0.9, 0.9, 0.5, 0.52]), seed=0).itertuples()
    assert np.isnan(found.crossing) and found.side == "none"
    habit = decided([0.9, 0.9, 0.9, 0.9])
    for label in LABELS:
        habit[f"logit_{label}"] = 5.0 * (label == "happy")  # whatever it hears
    (found,) = decision_layer(habit.assign(margin=5.0), seed=0).itertuples()
    assert found.side == "none" and found.reason == "the margin is not beyond the label prior at the last layer"


# pair: target, texts, then the five logits at l = 0 (the donor's own), 1, 2 (the recipient's own)
PAIRS = {
    "p": ("sad", "ab", [[0, 0, 6, 0, 0], [0, 1, 3, 0, 0], [0, 4, 0, 0, 0]]),
    "q": ("sad", "ab", [[0, 0, 0, 2, 0], [0, 0, 0, 1, 0], [0, 2, 0, 0, 0]]),
    "r": ("sad", "ab", [[0, 0, 5, 0, 0]] * 3),
}


def patch_table(pairs: dict = PAIRS, kind: str = "semantic") -> pd.DataFrame:
    rows = []
    for name, (target, texts, layers) in pairs.items():
        donor, base = (LABELS[int(np.argmax(layers[end]))] for end in (0, -1))
        at = LABELS.index(target)
        for layer, logits in enumerate(layers):
            patch = LABELS[int(np.argmax(logits))]
            row = {"pair_id": f"{kind}:{name}", "kind": kind, "target": target, "layer": layer, "pred_base": base}
            row |= {f"logit_{label}": logit for label, logit in zip(LABELS, logits)} | {"pred_donor": donor, "pred_patch": patch}
            row |= {"flip_to_target": int(patch == target), "flip_from_base": int(patch != base)}
            row |= {"delta_logit": logits[at] - layers[-1][at], "recipient_text_id": texts[0], "donor_text_id": texts[-1]}
            rows.append(row)
    return pd.DataFrame(rows)


def test_patch_layers_by_hand() -> None:
    table = patch_layers(patch_table(), seed=0)
    expected = {
        "flip_to_target": [2 / 3, 2 / 3, 1 / 3],
        "flip_from_base": [2 / 3, 2 / 3, 0],
        "flip_gain": [1 / 3, 1 / 3, 0],
        "answer_donor": [1, 1, 1 / 3],
        "answer_recipient": [1 / 3, 1 / 3, 1],
        "delta_logit": [2, 1, 0],
        "delta_over_mean": [5.6 / 3, 3.2 / 3, 0],
        "delta_over_base": [4, 8 / 3, 0],
        "donor_gain": [4, 4, 4],
        "recovery": [1, 2 / 3, 0],
        "directedness": [0.5, 0.5, np.nan],
        "n_directed": [2, 2, 0],
        "n_eligible": [2, 2, 2],  # r: donor and recipient say the same
        "flip_to_target_eligible": [0.5, 0.5, 0],
        "flip_from_base_eligible": [1, 1, 0],
        "answer_donor_eligible": [1, 1, 0],
        "answer_recipient_eligible": [0, 0, 1],
        "floor": [1 / 3] * 3,
        "ceiling": [2 / 3] * 3,
        "directedness_null": [0.5, 0.5, np.nan],  # both are to come to sad, and one of two answers is that
        "directedness_excess": [0, 0, np.nan],
    }
    for column, values in expected.items():
        np.testing.assert_allclose(table[column], values, atol=1e-12, err_msg=column)
    assert table.kind.tolist() == ["semantic"] * 3 and table.n.tolist() == [3] * 3 and table.n_texts.tolist() == [2] * 3


def test_nothing_to_resample_gives_no_interval_and_says_why() -> None:
    """One text, or two that every pair is of: leaving one out leaves nothing."""
    table = patch_layers(patch_table(), seed=0)
    ends = [c for c in table if c.endswith(("_lo", "_hi"))]
    assert table[ends].isna().all(axis=None) and len(ends) == 4 * 16
    assert table.clusters.tolist() == ["none: no two texts to tell apart"] * 3
    (control,) = release_layer(patch_table(), seed=0).itertuples()
    assert np.isnan(control.release_layer) and control.reason == "none: no two texts to tell apart"
    one = lens_table([["n", "s"]], [[0, 1]], "a")
    table = lens_layers(one, seed=0)
    assert table.n.tolist() == [1, 1] and table.margin.tolist() == [0, 1] and table.margin_lo.isna().all()
    assert table.clusters.tolist() == ["none: no two texts or speakers to tell apart"] * 2


def test_tables_of_no_rows() -> None:
    lens, patches = lens_table([["n", "s"]], [[0, 1]], "a"), patch_table()
    for table in (lens_layers(lens[:0], seed=0), congruent_layers(lens, seed=0), decision_layer(lens[:0], seed=0)):
        assert len(table) == 0 and "n" in table
    for table in (patch_layers(patches[:0], seed=0), contrast_layers(patches, seed=0), release_layer(patches[:0], seed=0)):
        assert len(table) == 0 and "n" in table


def many_pairs(shift: float, kind: str, n: int = 60) -> pd.DataFrame:
    """Return pairs of twelve texts; the target's logit falls from 4 + shift (donor) over half of it to 0 (recipient)."""
    rng = np.random.default_rng(len(kind))
    texts = "abcdefghijkl"
    pairs = {}
    for i in range(n):
        donor = [0, 0, 4 + shift + rng.normal(), 0, 0]
        pairs[f"{i}"] = (
            "sad",
            "".join(rng.choice(list(texts), 2, replace=False)),
            [donor, [0, 0, 0.7 * donor[2], 0, 0], [0, 0, 0.4 * donor[2], 0, 0], [0, 2, 0, 0, 0]],
        )
    return patch_table(pairs, kind)


def test_contrast_of_the_kinds_has_its_own_interval() -> None:
    rows = pd.concat([many_pairs(2, "semantic", 60), many_pairs(0, "prosody", 30)])
    table, kinds = contrast_layers(rows, seed=0), patch_layers(rows, seed=0).set_index(["kind", "layer"])
    for column in ("flip_to_target", "delta_logit"):
        means = kinds[column].unstack("kind")
        np.testing.assert_allclose(table[column], means.semantic - means.prosody, atol=1e-12)
    assert table.delta_logit_lo[0] > 1 and table.delta_logit_hi[0] < 3.5 and table.n.tolist() == [90] * 4
    assert (table.delta_logit_band_lo[:3] < table.delta_logit_lo[:3]).all()


def test_release_layer() -> None:
    rows = pd.concat([many_pairs(2, "semantic"), many_pairs(0, "prosody").assign(delta_logit=0.0)])
    found = release_layer(rows, seed=0).set_index("kind")
    assert found.loc["semantic", ["release_layer", "release_layer_lo", "release_layer_hi"]].tolist() == [2, 2, 2]
    assert 1 < found.crossing["semantic"] < 2
    assert np.isnan(found.release_layer["prosody"])
    assert found.reason["prosody"] == "the interval at l = 0 holds 0"


def test_recovery_needs_donors_that_differ_from_recipients() -> None:
    rows = many_pairs(2, "semantic")
    assert patch_layers(rows, seed=0).recovery.tolist() == pytest.approx([1, 0.775, 0.55, 0], abs=0.02)
    logits = [c for c in rows if c.startswith("logit_")]
    rows[logits] = np.random.default_rng(0).normal(size=(len(rows), 5))
    table = patch_layers(rows, seed=0)
    assert table.donor_gain_lo[0] < 0 < table.donor_gain_hi[0] and table.recovery.isna().all()


def test_controls_are_kept_apart() -> None:
    real, random = many_pairs(2, "semantic"), many_pairs(0, "semantic")
    rows = pd.concat([real.assign(control="none"), random.assign(control="random_donor")])
    table = patch_layers(rows, seed=0)
    assert table.control.tolist() == ["none"] * 4 + ["random_donor"] * 4 and list(table)[:3] == ["control", "kind", "layer"]
    alone = patch_layers(real, seed=0)
    pd.testing.assert_frame_equal(table[:4].drop(columns="control"), alone)
    assert release_layer(rows, seed=0).control.tolist() == ["none", "random_donor"]


def test_speakers_join_the_texts_where_the_rows_have_them() -> None:
    rows = many_pairs(2, "semantic")
    few = rows.assign(recipient_speaker=rows.pair_id.str[-1].isin(list("01234")), donor_speaker="other")
    speakers = [f"s{int(p.split(':')[1]) % 8}" for p in rows.pair_id]
    many = rows.assign(recipient_speaker=speakers, donor_speaker=speakers)
    assert patch_layers(rows, seed=0).clusters[0] == patch_layers(few, seed=0).clusters[0] == "texts"
    table = patch_layers(many, seed=0)
    assert table.clusters[0] == "texts and speakers" and table.n_speakers[0] == 8


def test_the_seed_decides() -> None:
    rows = many_pairs(2, "semantic")
    first, again, other = (patch_layers(rows, seed=s) for s in (3, 3, 4))
    pd.testing.assert_frame_equal(first, again)
    assert (first.delta_logit_band_hi[:3] != other.delta_logit_band_hi[:3]).all()


def test_a_ratio_over_a_few_texts_has_no_interval() -> None:
    same = [[0, 0, 5, 0, 0]] * 3
    pairs = {str(i): ("sad", text * 2, PAIRS["p"][2] if i < 4 else same) for i, text in enumerate("abcdefghij")}
    table = patch_layers(patch_table(pairs), seed=0)
    assert table.n_eligible[0] == 4 and table.flip_to_target_eligible.tolist() == [1, 1, 0]
    assert table[["flip_to_target_eligible_lo", "directedness_hi"]].isna().all(axis=None)
    assert table.flip_to_target_lo.notna().all()


def test_speakers_and_sources_that_a_manifest_leaves_empty_are_not_said_to_be_one() -> None:
    rows = lens_table([["n", "s"]] * 6, [[0, 1]] * 6, "abcdef")
    empty = rows.assign(speaker="", source=np.nan)
    assert lens_layers(rows, seed=0).held_fixed[0] == "1 speaker" and lens_layers(empty, seed=0).held_fixed[0] == ""
    assert lens_layers(empty, seed=0).clusters[0] == "texts"
