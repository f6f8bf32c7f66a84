"""Crossings lie on the lines between the listed layers, and their intervals are those of the curve there."""

import numpy as np
import pytest
from scipy import stats

from activation_patching.span.findings import span_effects
from activation_patching.span.tables import tables_of
from common.stats.clustered_means import estimate
from common.stats.clusters import Design, memberships
from common.stats.crossings import crossing
from tests.activation_patching.test_effects import MODELS
from tests.tiny_models import planted


def test_a_crossing_lies_on_the_line_between_listed_layers_wherever_they_are() -> None:
    """Curves that are straight between the listed layers cross at the same place, whichever layers between are listed too."""
    rng, all_layers = np.random.default_rng(0), np.arange(21)
    ends = np.stack([rng.normal(height, 0.4, 40) for height in (-1.0, -1.0, 0.5, 1.0)], axis=1)
    listed = [0, 3, 11, 20]
    curves = np.array([np.interp(all_layers, listed, unit) for unit in ends])
    design = Design({"texts": memberships([str(i) for i in range(40)])})
    whole = crossing(estimate(curves[:, None], design), all_layers)
    some = crossing(estimate(curves[:, None][..., listed], design), listed)
    assert 7 < whole.place < 9.5 and some.place == pytest.approx(whole.place, abs=0.05)
    assert (some.low, some.high) == pytest.approx((whole.low, whole.high), abs=0.5)


def test_a_crossing_by_hand() -> None:
    """Four units near -1, 1, 3 at l = 0, 4, 5: through 0 at l = 2; nowhere where the last layer's interval holds 0."""
    curves = np.array([[-1.0, 1, 3]]) + 0.1 * np.array([[-1], [-1], [1], [1]])
    design = Design({"texts": memberships(list("abcd"))})
    found = crossing(estimate(curves[:, None], design), (0, 4, 5))
    se = 0.2 / np.sqrt(3) / 2
    half = stats.t.isf(0.025, 3) * se  # of the curve at every place; the line rises by a half a layer
    assert found.place == pytest.approx(2) and found.reason == ""
    assert found.low == pytest.approx(2 - 2 * half, abs=0.2) and found.high == pytest.approx(2 + 2 * half, abs=0.2)
    assert crossing(estimate(curves[:, None] - 2.95, design), (0, 4, 5)).reason == "its interval at the last layer holds 0"
    above = crossing(estimate(curves[:, None] + 3, design), (0, 4, 5))
    assert (above.place, above.low, above.high) == (0, 0, 0)


def test_what_is_found_is_of_the_listed_layers() -> None:
    rows = planted.patches(planted.clips(texts=2), MODELS["hears words only"].rule, "semantic")
    listed = (0, 2, 5, 6, 10)
    (found,) = span_effects(tables_of(rows[rows.layer.isin(listed)]))
    assert found.layers == (2, 6) and found.effect.value == pytest.approx(2 / 3)  # carried at 2 and 5, not at 6
    assert found.half_effect_layer is not None and found.half_effect_layer.value == pytest.approx(5.5, abs=0.05)
