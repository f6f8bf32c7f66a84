"""Tables by hand; findings are what they say: numbers, intervals, what these are over, and None where nothing can be said."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from activation_patching.span.findings import headline, span_effects
from activation_patching.span.tables import tables_of
from common.clips.manifest import LABELS
from common.stats.findings import Count, Estimate, estimate_of, fixed, over, spreads
from logit_lens.findings import headline as lens_headline
from logit_lens.findings import lens_findings
from logit_lens.tables import congruent_layers, crossover, label_table, lens_layers, lens_tables, readable_from
from tests.activation_patching.test_effects import MODELS
from tests.tiny_models import planted


def test_an_estimate_is_on_the_side_of_0_on_which_its_interval_is() -> None:
    assert [Estimate(0.1, low, high).side for low, high in ((0.01, 0.2), (0, 0.2), (-0.1, 0.3), (-0.2, -0.1))] == [1, 0, 0, -1]
    assert Estimate(0.1).side == 0  # no interval


def test_an_estimate_names_what_it_is_over_and_a_row_what_is_held_fixed() -> None:
    row = pd.Series({"x": 0.5, "x_lo": 0.4, "x_hi": 0.6, "n": 120, "n_texts": 50, "n_speakers": 2, "clusters": "texts"})
    assert estimate_of(row, "x") == Estimate(0.5, 0.4, 0.6, 120, (Count(50, "texts"),))
    assert fixed(row) == (Count(2, "speakers"),)
    both = pd.concat([row.drop("clusters"), pd.Series({"clusters": "texts and sources", "n_sources": 8})])
    assert over(both) == (Count(50, "texts"), Count(8, "sources")) and fixed(both) == ()  # speakers lie within the sources
    nothing = pd.concat([row.drop("clusters"), pd.Series({"clusters": "none: no two texts or speakers to tell apart"})])
    assert over(nothing) == () and fixed(nothing) == (Count(50, "texts"), Count(2, "speakers"))


def test_a_spread_over_prompts_counts_in_how_many_the_interval_excludes_0() -> None:
    rows = pd.DataFrame({"what": ["x", "x", "x", "y"], "value": [0.1, 0.3, 0.2, np.nan], "lo": [0, 0.1, -0.1, np.nan]})
    rows = rows.assign(hi=[0.2, 0.5, 0.5, np.nan], n=[40, 40, 38, 40])
    (found,) = spreads(rows)
    assert (found.what, found.least, found.most, found.shown, found.prompts, found.n) == ("x", 0.1, 0.3, 1, 3, 40)


@pytest.mark.parametrize("name", ("hears words only", "hears the voice only", "ignores the audio"))
def test_effects_are_found_where_a_model_has_them_alone(name: str) -> None:
    model = MODELS[name]
    rows = pd.concat([planted.patches(planted.clips(), model.rule, kind) for kind in ("semantic", "prosody")])
    tables = tables_of(rows)
    for found in span_effects(tables):
        target, third = getattr(model, found.kind)
        assert found.effect.side == (target > third) and found.enough and found.layers == (1, planted.LAYERS - 2)
        assert found.effect.value == pytest.approx(planted.INNER * (target - third))
        assert found.effect.over == (Count(25, "texts"),) and found.beyond_label is None
        assert (found.half_effect_layer is not None) == (target > third)
        if found.half_effect_layer:
            assert planted.CARRIED < found.half_effect_layer.value < planted.CARRIED + 1
    assert headline(tables).what.tolist() == [
        "effect of the words",
        "words: half-effect layer",
        "effect of the voice",
        "voice: half-effect layer",
    ]


def test_of_pairs_without_third_labels_too_few_are_kept_for_a_sentence() -> None:
    rows = planted.patches(planted.clips(labels=3), MODELS["hears words only"].rule, "semantic", labels=3)
    (found,) = span_effects(tables_of(rows))
    assert found.kept == 0 and not found.enough and np.isnan(found.effect.value)


def test_the_lens_says_from_where_it_can_read_and_from_where_one_cue_leads() -> None:
    rows = led([0.5, 0.2, 0.4, 0.7, 0.8, 0.9])
    rows["mass"] = rows.layer.map({0: 0.01, 1: 0.2}).fillna(0.9)
    found = lens_findings(lens_tables(rows))
    assert (found.reading.first_layer, found.reading.last_layer) == (2, 5) and found.reading.mass_before == pytest.approx(0.2)
    assert found.reading.side == "prosody" and found.reading.lead_from is not None and 2 < found.reading.lead_from.value < 3
    assert found.answers.lead.side == 1 and found.answers.voice.value == pytest.approx(0.9, abs=0.05)
    assert found.congruent is found.free_answers is None and found.decodings == ()
    always = lens_findings(lens_tables(led([0.8, 0.9, 0.9])))  # ahead from the first layer that can be read: no crossing to name
    assert always.reading.side == "prosody" and always.reading.lead_from is None and np.isnan(always.reading.mass_before)
    blind = lens_findings(lens_tables(rows.assign(mass=0.1)))
    assert blind.reading.first_layer is None and blind.reading.side == "none"
    assert lens_headline(lens_tables(rows)).what.tolist()[0] == "answer is the words' label"


def test_free_answers_and_congruent_clips_are_found() -> None:
    rows = lens_table([["n", "s"], ["n", "s"]], [[0, 0]] * 2, "ab", prosody="sh")
    rows["said"], rows["spoke"] = ["", "sad", "", ""], 1
    found = lens_findings(lens_tables(rows))
    assert found.congruent is not None and found.congruent.value == 1
    assert found.free_answers is not None and (found.free_answers.agreement.value, found.free_answers.no_label.value) == (
        0.5,
        0.5,
    )


def lens_table(
    winners: list[list[str]], margins: list[list[float]], texts: str, *, semantic: str = "", prosody: str = "", speakers: str = ""
) -> pd.DataFrame:
    """Return rows of clips x layers; labels by their first letter (s: sad), words sad and voice happy unless given."""
    names = {label[0]: label for label in LABELS if label != "surprised"}
    rows = [
        {
            "sample_id": f"c{i}",
            "layer": layer,
            "winner": names[w],
            "margin": m,
            "mass": 0.9,
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
    table = lens_layers(rows)
    assert table.n.tolist() == [3, 3] and table.n_texts.tolist() == [2, 2] and table.n_speakers.tolist() == [1, 1]
    np.testing.assert_allclose(table.margin, [1, -1])
    np.testing.assert_allclose(table[["win_semantic", "win_prosody", "win_other"]], [[0, 1 / 3, 2 / 3], [2 / 3, 1 / 3, 0]])
    assert table.voice_lead.tolist() == [1 / 3, -1 / 3] and (table.voice_lead_lo < table.voice_lead).all()
    assert table.clusters.tolist() == ["texts"] * 2 and table.mass.tolist() == pytest.approx([0.9] * 2)


def test_the_interval_of_a_mean_by_hand() -> None:
    """Six clips of three texts: 0, 2; 4, 4; 8, 6. Means 1, 4, 7; between texts 18, within 4/3."""
    rows = lens_table([["s"]] * 6, [[0], [2], [4], [4], [8], [6]], "aabbcc")
    table = lens_layers(rows).iloc[0]
    se = np.sqrt(18 / 6)
    of_text = (18 - 4 / 3) / 2 / 3
    share = of_text / (of_text + 4 / 3 / 6)
    half = stats.t.isf(0.025, 1 / (share / 2 + (1 - share) / 5)) * se
    assert (table.margin, table.margin_lo, table.margin_hi) == pytest.approx((4, 4 - half, 4 + half))


def test_a_lens_tells_nothing_where_all_clips_get_one_answer_or_the_labels_have_little_of_the_probability() -> None:
    winners = [["h", "h", "s", "s"], ["h", "s", "s", "s"], ["h", "s", "h", "h"], ["h", "s", "s", "s"]]
    rows = lens_table(winners, [[1, -1, -1, -2]] * 4, "abcd")
    rows["mass"] = rows.layer.map({0: 0.9, 1: 0.49, 2: 0.5, 3: 0.9})
    table = lens_layers(rows)
    assert table.readable.tolist() == [0, 0, 1, 1] and readable_from(table) == 2
    assert crossover(rows, table).first_layer.tolist() == [2]
    blind = lens_layers(rows.assign(mass=0.1))
    assert readable_from(blind) == 4 and crossover(rows, blind).reason.tolist() == ["the lens reads the labels at no layer"]


def led(chances: list[float], clips: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return rows in which the voice wins with a chance per layer, and else the words."""
    won = np.random.default_rng(seed).random((clips, len(chances))) < chances
    winners = [["h" if w else "s" for w in clip] for clip in won]
    return lens_table(winners, (4.0 * won - 2).tolist(), "abcdefghijklmnopqrst" * (clips // 20))


def test_crossover_is_where_one_cue_comes_to_be_ahead_of_the_other() -> None:
    rows = led([0.2, 0.2, 0.4, 0.6, 0.8, 0.9])
    (found,) = crossover(rows, lens_layers(rows)).itertuples()
    assert found.side == "prosody" and found.reason == "" and abs(found.crossing - 2.5) < 0.4
    assert found.crossing_lo < found.crossing < found.crossing_hi < 3.5
    swapped = rows.assign(outcome=rows.outcome.map({"prosody": "semantic", "semantic": "prosody"}))
    (other,) = crossover(swapped, lens_layers(rows)).itertuples()
    assert other.side == "semantic" and other.crossing == found.crossing
    even = led([0.2, 0.9, 0.5])
    (none,) = crossover(even, lens_layers(even)).itertuples()
    assert none.side == "none" and np.isnan(none.crossing) and none.reason == "its interval at the last layer holds 0"


def test_congruent_clips_have_a_table_of_their_own() -> None:
    rows = lens_table([["s", "h"], ["h", "h"], ["h", "s"]], [[0, 0], [0, 0], [2, -2]], "abc", semantic="sss", prosody="ssh")
    table = congruent_layers(rows)
    assert table.n.tolist() == [2, 2] and table.accuracy.tolist() == [0.5, 0]
    assert lens_layers(rows).n.tolist() == [1, 1] and lens_layers(rows).margin.tolist() == [2, -2]


def test_label_table_by_hand() -> None:
    rows = lens_table([["s"], ["h"], ["n"], ["s"]], [[0]] * 4, "abcd", semantic="ssss", prosody="hhhs")
    table = label_table(rows).set_index(["semantic_label", "prosody_label"])
    np.testing.assert_allclose(table.loc[("sad", "happy"), ["win_semantic", "win_prosody"]].astype(float), [1 / 3] * 2)
    assert table.loc[("sad", "happy"), ["n", "answers_happy", "answers_neutral", "answers_sad"]].tolist() == [3, 1, 1, 1]
    assert table.loc[("sad", "sad"), ["n", "win_semantic", "win_prosody"]].tolist() == [1, 1, 1]


def test_free_answers_are_held_against_the_first_token() -> None:
    rows = lens_table([["n", "s"], ["n", "h"], ["n", "s"], ["n", "s"]], [[0, 0]] * 4, "abcd")
    rows["said"], rows["spoke"] = ["", "sad", "", "sad", "", "", "", ""], [1, 1, 1, 1, 1, 1, 0, 0]
    (found,) = lens_tables(rows)["generated"].itertuples()
    assert found.n == 3 and found.agreement == pytest.approx(1 / 3) and found.no_label == pytest.approx(1 / 3)


def test_row_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    rows = lens_table([["n"] * 3] * 8, rng.normal(size=(8, 3)).tolist(), "aabbccdd")
    pd.testing.assert_frame_equal(lens_layers(rows), lens_layers(rows.sample(frac=1, random_state=1)))


def test_a_missing_row_is_an_error_not_another_mean() -> None:
    rows = lens_table([["n"] * 2] * 2, [[0, 1], [2, 3]], "ab")
    for broken in (rows.iloc[:-1], pd.concat([rows.iloc[:-1], rows.iloc[:1]]), pd.concat([rows, rows])):
        with pytest.raises(ValueError, match="not every sample_id has each of the 2 layers once"):
            lens_layers(broken)


def test_tables_without_conflict_clips() -> None:
    rows = lens_table([["s", "s"]] * 2, [[0, 1]] * 2, "ab", prosody="ss")
    tables = lens_tables(rows)
    assert not len(tables["layers"]) and tables["congruent"].accuracy.tolist() == [1, 1]
    assert np.isnan(tables["crossover"].crossing[0])


def test_nothing_to_resample_gives_no_interval_and_says_why() -> None:
    table = lens_layers(lens_table([["n", "s"]], [[0, 1]], "a"))
    assert table.n.tolist() == [1, 1] and table.margin.tolist() == [0, 1] and table.margin_lo.isna().all()
    assert table.clusters.tolist() == ["none: no two texts or speakers to tell apart"] * 2


def test_speakers_that_a_manifest_leaves_empty_are_not_said_to_be_one() -> None:
    rows = lens_table([["n", "s"]] * 6, [[0, 1]] * 6, "abcdef")
    empty = rows.assign(speaker="", source=np.nan)
    assert lens_layers(rows).n_speakers[0] == 1 and lens_layers(empty).n_speakers[0] == 0
    assert lens_layers(empty).clusters[0] == "texts"


# pair: target, text, then the five logits at l = 0 (the donor's own), 1, 2, 3 (the recipient's own); neutral words, sad voice, to
# happy: angry and surprised are third
PAIRS = {
    "p": ("a", [[0, 6, 0, 0, 0], [0, 3, 1, 0, 0], [0, 0, 2, 0, 0], [0, 0, 4, 0, 0]]),
    "q": ("a", [[0, 0, 0, 2, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 0], [0, 0, 2, 0, 0]]),
    "r": ("b", [[0, 0, 5, 0, 0]] * 4),
}


def patch_table(control: str = "none", target: str = "happy") -> pd.DataFrame:
    rows = []
    for name, (text, layers) in PAIRS.items():
        at, base = LABELS.index(target), LABELS[int(np.argmax(layers[-1]))]
        for layer, logits in enumerate(layers):
            patch = LABELS[int(np.argmax(logits))]
            row = {
                "pair_id": f"{target}{name}|{control}",
                "true_pair_id": f"{target}{name}",
                "kind": "prosody",
                "control": control,
            }
            row |= {"target": target, "layer": layer, "pred_base": base, "pred_patch": patch, "kv_shared": 0}
            row |= {f"logit_{label}": float(logit) for label, logit in zip(LABELS, logits)}
            row |= {f"base_{label}": float(logit) for label, logit in zip(LABELS, layers[-1])}
            row |= {"flip_to_target": int(patch == target), "flip_from_base": int(patch != base)}
            row |= {"delta_logit": float(logits[at] - layers[-1][at])}
            for role, voice in (("recipient", "sad"), ("donor", target)):
                row |= {f"{role}_text_id": text, f"{role}_speaker": "x"}
                row |= {f"{role}_semantic_label": "neutral", f"{role}_prosody_label": voice}
            rows.append(row)
    return pd.DataFrame(rows)


def test_patch_tables_by_hand() -> None:
    """Three pairs to happy; the same to angry, in which happy is third: angry comes in one pair of three at l = 0, 1 and 2."""
    tables = tables_of(pd.concat([patch_table(), patch_table(target="angry")]))
    table = tables["effects"]
    assert table.kind.tolist() == ["prosody"] * 4 and table.n.tolist() == [6] * 4 and table.kept.tolist() == [1] * 4
    np.testing.assert_allclose(table.to_target, [1 / 3, 1 / 3, 1 / 6, 0])
    np.testing.assert_allclose(table.to_third, [1 / 3, 1 / 3, 1 / 6, 0])
    np.testing.assert_allclose(table.effect, 0, atol=1e-12)
    np.testing.assert_allclose(table.logit_target, [(6 + 0 + 0 + 0 + 2 + 0) / 6, (3 + 1) / 6, 1 / 6, 0])
    np.testing.assert_allclose(table.from_base, [2 / 3, 2 / 3, 1 / 3, 0])
    (summary,) = tables["summary"].itertuples()
    assert summary.to_target == pytest.approx(1 / 4) and (summary.first_layer, summary.last_layer) == (1, 2)
    assert np.isnan(summary.half_effect_layer) and summary.reason == "no effect on the logit is shown at the first layer"
    layers = tables["layers"]
    np.testing.assert_allclose(layers.flip_to_target, table.to_target)
    np.testing.assert_allclose(layers.delta_logit, table.logit_target)


def test_controls_are_kept_apart_and_never_counted_as_pairs() -> None:
    real = pd.concat([patch_table(), patch_table(target="angry")])
    control = pd.concat([patch_table("silence"), patch_table("silence", "angry")]).assign(pred_patch="happy", flip_to_target=1)
    tables, alone = tables_of(pd.concat([control, real])), tables_of(real)
    for name in ("effects", "summary"):
        pd.testing.assert_frame_equal(tables[name], alone[name])
    assert sorted(tables["layers"].control.unique()) == ["none", "silence"]
    assert tables["layers"][tables["layers"].control == "silence"].flip_to_target.tolist() == [1] * 4


def test_two_layers_have_no_inner_ones_and_so_no_summary() -> None:
    rows = patch_table()
    tables = tables_of(rows[rows.layer.isin((0, 3))])
    assert not len(tables["summary"]) and len(tables["effects"]) == 2


def test_the_voice_beyond_its_label_is_what_donors_of_the_same_text_and_labels_do_not_change() -> None:
    real = patch_table()
    same = patch_table("same_text_donor").assign(flip_from_base=0)
    same = same[same.true_pair_id != "happyr"]
    (found,) = tables_of(pd.concat([real, same]))["beyond_label"].itertuples()
    assert found.n == 2 and found.beyond_label == pytest.approx(3 / 4)  # p changes at l = 1 alone, q at l = 1 and 2
    assert "beyond_label" not in tables_of(real)
