"""Count ties, and pairs patched again because of rounding; stop a run that has too many of these."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.clips.csvfile import read_table
from common.errors import CheckFailed

if TYPE_CHECKING:
    import pandas as pd

_MOST = 0.01  # of the pairs may be beyond the tolerance of the dtype: noise, not a fault


def check_share(donors: Sequence[str], pairs: int, engine: str, last: str) -> None:
    """Raise CheckFailed where more than 1 % of `pairs` had to be patched again, and not all of them with one donor.

    `donors` are those of the pairs patched again, one for each; `last` says what was wrong with the last. A single donor that
    the fast way renders badly is more than 1 % of a small run, and no fault of the way.
    """
    if len(donors) > _MOST * pairs and len(set(donors)) > 1:
        raise CheckFailed(
            f"{len(donors)} of {pairs} pairs, more than {_MOST:.0%}, are not what {engine} must give ({last}): it is wrong "
            "here, not noisy"
        )


def donors_again(rows: Path, engine: str | None) -> list[str]:
    """Return the donor of each pair that an earlier start of the run had to patch again: a fault does not pass by many starts."""
    if not rows.exists():
        return []
    pairs = read_table(rows, ("donor_id", "layer", "engine"))
    return pairs[(pairs.layer == 0) & (pairs.engine != engine)].donor_id.tolist()


def noise_of(rows: "pd.DataFrame", *, engine: str | None = None) -> tuple[dict[str, int], list[str]]:
    """Return the counts that run.json keeps of ties and of pairs patched again, and warnings of them.

    `engine` is how the pairs were to be patched, none where there are none.
    """
    counts, warnings = {"tied answers": int(rows.tied.sum())}, []
    if counts["tied answers"]:
        warnings.append(f"{counts['tied answers']} of {len(rows)} answers are ties between labels, of which the first was taken")
    if engine:
        pairs = rows[rows.layer == 0]
        counts["pairs patched again by rerun"] = again = int((pairs.engine != engine).sum())
        if again:
            warnings.append(
                f"{again} of {len(pairs)} pairs were too noisy by {engine} and were patched again by rerun (column engine)"
            )
    return counts, warnings


def own_run_differences(rows: "pd.DataFrame") -> dict[str, dict[str, float]]:
    """Return for run.json how far rows 0 are from the donors' own runs and rows L from the recipients', at most.

    Of subspaces the second is the run without intervention, and there is no first.
    """
    ends = rows.groupby("layer").own_run_difference.max()
    last = "unedited - recipient, all pairs" if "intervention" in rows else "row L - recipient, all pairs"
    names = {"row 0 - donor, all pairs": ends.iloc[0], last: ends.iloc[-1]}
    return {"controls": {name: float(largest) for name, largest in names.items() if largest == largest}}  # nan: not a control
