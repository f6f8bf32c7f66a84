"""What the probes of the stages found: a typed record for each label, made from stages.csv alone."""

from dataclasses import dataclass

import pandas as pd

from common.stats.findings import Estimate, estimate_of


@dataclass(frozen=True)
class StageDecoding:
    """From and up to where a label can be decoded on its way from the log-mel spectrum to the decoder's last layer.

    `since` and `until`: the first and the last stage where it is, beyond permuted labels; None where it is at none. `drop`: the
    largest loss of accuracy from one stage to the next, between the stages `between`; None where none is shown.
    """

    kind: str
    since: str | None
    until: str | None
    drop: Estimate | None
    between: tuple[str, str]


def stage_decodings(stages: pd.DataFrame) -> tuple[StageDecoding, ...]:
    """Return the finding of each label of stages.csv; none of an empty table."""
    if not len(stages):
        return ()
    of_states = stages[stages.probe == "states"]
    return tuple(_stage_decoding(str(kind), rows) for kind, rows in of_states.groupby("label", sort=False))


def _stage_decoding(kind: str, rows: pd.DataFrame) -> StageDecoding:
    rows = rows.sort_values("place", ignore_index=True)
    there = rows.stage[rows.beyond_permuted_lo > 0]
    shown = rows[rows["drop_lo"] > 0]
    at = int(shown["drop"].idxmax()) if len(shown) else 0
    return StageDecoding(
        kind=kind,
        since=str(there.iloc[0]) if len(there) else None,
        until=str(there.iloc[-1]) if len(there) else None,
        drop=estimate_of(rows.loc[at], "drop") if len(shown) else None,
        between=(str(rows.stage[max(0, at - 1)]), str(rows.stage[at])),
    )
