"""A few lines of the calibration with fewer draws: `make calibrate` has all of them with 2,000, in common/stats/README.md."""

import numpy as np
import pytest

from common.stats.clustered_means import estimate
from common.stats.clusters import Design, memberships
from common.stats.intervals import interval
from common.stats.units import Units
from tests.helpers import calibration, designs

DRAWS = 200


@pytest.mark.parametrize("design", ("50 x 2", "8 x 2", "8 x 12", "MELD-like"))
@pytest.mark.parametrize("gains", (calibration.USUAL, calibration.RARE), ids=("usual", "rare"))
def test_intervals_hold_the_truth_as_often_as_they_say(design: str, gains: designs.Gains) -> None:
    found = list(calibration.of_clips(design, gains, DRAWS))
    for kind in ("semantic", "prosody"):
        found += calibration.of_pairs(design, kind, gains, DRAWS)
    print(design, found)
    counted = [line.held for line in found if not np.isnan(line.held)]
    assert min(counted) > 0.89 and 0.93 < np.mean(counted) < 0.98  # of one line four standard errors below .95


def held(units: Units, design: Design, margins: np.ndarray) -> float:
    of = estimate(margins, design)
    low, high = interval(of, share=np.zeros(margins.shape[1], dtype=bool))
    truth = margins.mean()
    return float(((low <= truth) & (truth <= high)).mean())


def test_taking_clips_for_independent_would_be_found_out() -> None:
    units, evidence = designs.heard("50 x 2", calibration.USUAL, DRAWS)
    alone = Design({"texts": memberships(np.arange(len(evidence)))})
    found = [held(units, design, evidence[:, 2, :, None]) for design in (units.design, alone)]
    print(found)
    assert found[0] > 0.91 and found[1] < 0.85


def test_taking_labels_for_drawn_makes_intervals_too_wide() -> None:
    """Words' labels are the design's: without them known the differences between them would count as chance."""
    units, evidence = designs.heard("50 x 2", designs.Gains(words=6), DRAWS)
    found = [
        held(units, design, evidence[:, 0, :, None])
        for design in (units.design, Design({"texts": units.design.clusters["texts"]}))
    ]
    print(found)
    assert found[0] < 0.98 and found[1] > 0.985
