"""Write the terminal's summary of span and exchange runs."""

from typing import Any

import pandas as pd

from activation_patching.span.findings import exchange_effects, span_effects
from common.clips.pairs import CUES
from common.run import terminal


def units_of(record: dict[str, Any]) -> str:
    """Return what the run is of: pairs of each kind, and how they were asked about."""
    kinds = ", ".join(f"{found['kept']} {kind} pairs" for kind, found in record["counts"]["pairs"].items())
    return f"{kinds} of {record['counts']['clips']} clips · prompt {record['prompt_name']}"


def summary(tables: dict[str, pd.DataFrame], intervention: str) -> list[str]:
    """Return the rows of the table: the effects in the mean of the inner layers, and until where they last."""
    rows = [terminal.header("estimate")]
    if intervention == "span":
        for found in span_effects(tables):
            cue = CUES[found.kind]
            rows.append(terminal.estimate(f"effect of the donor's {cue} (flips)", found.effect if found.enough else None))
            rows.append(terminal.estimate(f"  half of it is gone from layer ({cue})", found.half_effect_layer, ".1f"))
            rows.append(terminal.estimate(f"  answers that change ({cue})", found.from_base))
    else:
        for effect in exchange_effects(tables):
            cue = CUES[effect.kind]
            rows.append(terminal.estimate(f"the {cue} exchanged: effect", effect.effect))
            rows.append(terminal.estimate("  with a random subspace", effect.random))
            rows.append(terminal.estimate("  difference of the two", effect.minus_random))
    return rows if len(rows) > 1 else ["no inner layer has rows: no effect is estimated"]
