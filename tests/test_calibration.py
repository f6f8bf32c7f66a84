"""A few lines of the calibration, with fewer draws: `make calibrate` has all of them with 500, in common/stats/README.md."""

from collections.abc import Callable

import numpy as np
import pytest

from common.stats.covariance import estimate
from common.stats.design import Design, memberships
from tests import calibration, designs

DRAWS = 150
LINES: dict[str, Callable[[], calibration.Line]] = {
    "MELD-like, means": lambda: calibration.means("MELD-like", DRAWS),
    "MELD-like, shares": lambda: calibration.shares("MELD-like", DRAWS),
    "Zipf 1, flips gained": lambda: calibration.gains("Zipf 1, 40 x 12", DRAWS),
    "200 x 10, rare shares": lambda: calibration.shares("200 x 10", 60),
    "RAVDESS, ratio": lambda: calibration.ratios("RAVDESS, 2 x 24", DRAWS),
    "RAVDESS, crossing": lambda: calibration.crossings("RAVDESS, 2 x 24", "crosses", 60),
    "40 x 12, five labels": lambda: calibration.means("40 x 12", DRAWS, labels=5),
    "40 x 12, voice beyond shuffled answers": lambda: calibration.nulls("40 x 12", 60),
    "8 x 3, means": lambda: calibration.means("8 x 3", DRAWS),
    "pairs of three texts": lambda: calibration.pair_means(DRAWS, roles=3),
    "pairs of three of twelve texts": lambda: calibration.pair_means(DRAWS, roles=3, texts=12, n=1000),
    "ten texts, flips gained": lambda: calibration.gains(
        "", DRAWS, simulated=designs.pairs(8, DRAWS, text=0.5, speaker=0.0, texts=10, n=90)
    ),
    "release": lambda: calibration.releases(60),
    "nothing left": lambda: calibration.equivalence("40 x 12", DRAWS),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line(name: str) -> None:
    line = LINES[name]()
    print(line)
    assert np.isnan(line.held) or line.held >= 0.92
    assert np.isnan(line.held) or line.held <= 0.98 or "crossing" in line.what or line.what == "release layer"
    assert np.isnan(line.missed) or line.missed <= 0.1
    assert np.isnan(line.false) or line.false <= 0.1


@pytest.mark.parametrize("name", ("40 x 12", "MELD-like"))
def test_taking_clips_for_independent_would_be_found_out(name: str) -> None:
    simulated = designs.clips(name, 0, DRAWS)
    of = estimate(simulated.noise, Design({"texts": memberships(np.arange(len(simulated.noise)))}))
    held, missed = calibration.coverage(of, 0, calibration.plain(of))
    print(f"{name} as if independent: intervals {held:.3f}, band misses {missed:.3f}")
    assert held < 0.9 and missed > 0.1


def test_taking_labels_for_drawn_makes_intervals_too_wide() -> None:
    simulated = designs.clips("40 x 12", 0, DRAWS, labels=5)
    of = estimate(simulated.noise, Design(simulated.design.clusters))
    held, _ = calibration.coverage(of, 0, calibration.plain(of))
    print(f"labels as if drawn: intervals {held:.3f}")
    assert held > 0.975
