"""Findings are what their tables say: numbers, intervals, what these are over, and None where nothing can be said."""

import numpy as np
import pandas as pd
import pytest

from activation_patching.span.findings import headline, span_effects
from activation_patching.span.tables import tables_of
from common.stats.findings import Count, Estimate, estimate_of, fixed, over, spreads
from logit_lens.findings import headline as lens_headline
from logit_lens.findings import lens_findings
from logit_lens.tables import lens_tables
from tests.activation_patching.test_effects import MODELS
from tests.stats.test_tables import led, lens_table
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
