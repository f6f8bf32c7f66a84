"""Tables and findings of free text: does a run say what its first token says?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from activation_patching.free_text import FILE
from common.clips.csvfile import read_table
from common.stats.layer_tables import Metric, layer_table
from common.stats.units import by_group, clip_units, pair_units

TABLE = "free_text"


def free_text_tables(out: Path, rows: pd.DataFrame, *, unit: str, answer: str, keys: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return `free_text`, a row for each group of `keys` and layer; none where nobody spoke. `answer`: the first token's label.

    Shares of units: `agreement`: it names the first token's label first; `word_agreement`: that label's word is the likeliest
    whole answer; `no_label`, of which `refusal`; `hedge`: it names several.
    """
    if not (out / FILE).exists():
        return {}
    rows = rows.merge(read_table(out / FILE), on=[unit, "layer"], validate="one_to_one")
    return {TABLE: by_group(rows, list(keys), lambda some: _layers(some, unit, answer))}


def _layers(rows: pd.DataFrame, unit: str, answer: str) -> pd.DataFrame:
    units = clip_units(rows) if unit == "curve_id" else pair_units(rows)
    kinds = units.grid("answer_kind")
    shares = {
        "agreement": units.grid("said") == units.grid(answer),
        "word_agreement": units.grid("whole_word") == units.grid(answer),
        "no_label": np.isin(kinds, ("none", "refusal")),
        "refusal": kinds == "refusal",
        "hedge": kinds == "hedge",
    }
    return layer_table(units, {name: Metric(found.astype(float), share=True) for name, found in shares.items()})


@dataclass(frozen=True)
class FreeText:
    """Where edited runs say least what their first token says: shares of `n` units at the layer and group where it is worst.

    `agreement`: the label named first is that of the first token; `word_agreement`: the likeliest whole word is. `no_label`,
    of which `refusal`: most answers that name none; `hedge`: most that name several.
    """

    n: int
    agreement: float
    word_agreement: float
    no_label: float
    refusal: float
    hedge: float


def free_text(tables: dict[str, pd.DataFrame]) -> FreeText | None:
    """Return the finding of a run whose edited clips or pairs spoke; None where none did."""
    table = tables.get(TABLE)
    if table is None:
        return None
    worst = {name: float(table[name].min()) for name in ("agreement", "word_agreement")}
    return FreeText(int(table.n.min()), **worst, **{name: float(table[name].max()) for name in ("no_label", "refusal", "hedge")})


def free_text_summary(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Return the rows of the terminal's table."""
    found = free_text(tables)
    if found is None:
        return []
    same = f"{found.agreement:.2f} at least at each layer (n = {found.n})"
    return [f"free text names the first token's label: {same}; no label {found.no_label:.2f} at most"]
