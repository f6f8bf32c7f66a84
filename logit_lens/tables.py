"""Make the tables of a lens run from lens.csv."""

import numpy as np
import pandas as pd

from common.clips.pairs import KINDS
from common.stats.clustered_means import estimate
from common.stats.crossings import Crossing, crossing
from common.stats.intervals import first_from
from common.stats.layer_tables import Metric, gain, layer_table
from common.stats.units import by_group, clip_units, labels_of

OUTCOMES = (*KINDS, "other")
MOST_OF_IT = 0.5  # share of the probability from which the labels are what the layer would say


def lens_tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables that the figures and the report are made of, by the names of their files; `labels` at the last layer."""
    layers = lens_layers(rows)
    return {
        "layers": layers,
        "congruent": congruent_layers(rows),
        "labels": label_table(rows[rows.layer == rows.layer.max()]),
        "crossover": crossover(rows, layers),
    } | ({"generated": generated_answers(rows)} if "said" in rows else {})


def lens_layers(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per layer over the conflict clips: mean `margin` (logits) and win rates `win_*` (shares of clips).

    - `voice_lead`: win_prosody - win_semantic, paired; at l = L it is the primary outcome of the experiment.
    - `mass`: the labels' share of the probability of the whole vocabulary (mean).
    - `readable`: 1 where the lens can tell anything: the labels have half of the probability or more, and not all clips get one
      and the same answer.
    """
    units = clip_units(conflict_rows(rows))
    wins = {o: (units.grid("outcome") == o).astype(float) for o in OUTCOMES}
    metrics = {"margin": Metric(units.grid("margin"))}
    metrics |= {f"win_{o}": Metric(won, share=True) for o, won in wins.items()}
    metrics |= {"voice_lead": gain(wins["prosody"] - wins["semantic"])}
    table = layer_table(units, metrics)
    mass = units.grid("mass").mean(axis=0) if len(units.unit_rows) else []
    answers = units.rows.groupby("layer").winner.nunique().to_numpy()
    return table.assign(mass=mass, readable=(np.asarray(mass) >= MOST_OF_IT) * (answers > 1))


def readable_from(layers: pd.DataFrame) -> int:
    """Return the place in the table of the first layer from which all are readable; their number where L is not."""
    return int(first_from(layers.readable.to_numpy() == 1))


def crossover(rows: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return one row: from where on `side`, the words or the voice, is ahead of the other in win rate, up to L.

    Only layers are looked at from which on the lens can read the labels, `first_layer` to L. `crossing` is between layers; nan,
    and `reason` says why, where neither is ahead at L.
    """
    units, first = clip_units(conflict_rows(rows)), readable_from(layers)
    places = units.layers[first:]
    found, side = Crossing(reason="the lens reads the labels at no layer"), "none"
    if len(places) and len(units.unit_rows):
        lead = (units.grid("outcome") == "prosody").astype(float) - (units.grid("outcome") == "semantic")
        side = "prosody" if lead[:, -1].mean() > 0 else "semantic"
        found = crossing(estimate((lead if side == "prosody" else -lead)[:, None, first:], units.design), places)
    told = {"side": "none" if np.isnan(found.place) else side, "first_layer": places[0] if len(places) else np.nan}
    return pd.DataFrame([told | found.columns("crossing") | {"reason": found.reason}])


def congruent_layers(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per layer over the clips whose words and voice agree: `accuracy`, the share answered with their label."""
    units = clip_units(rows[rows.semantic_label == rows.prosody_label])
    right = (units.rows.winner == units.rows.semantic_label).astype(float)
    return layer_table(units, {"accuracy": Metric(units.grid(right), share=True)})


def label_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per semantic x prosody label at the layer of `rows`: `n` clips, win rates, how often each label is said.

    Congruent clips stand on the diagonal; there a clip answered with its label counts as a win of both.
    """

    def cell(rows: pd.DataFrame) -> pd.DataFrame:
        units = clip_units(rows)
        won = {
            f"win_{kind}": Metric((units.grid("winner") == units.grid(f"{kind}_label")).astype(float), share=True)
            for kind in KINDS
        }
        table = layer_table(units, won)
        return table[["n", *(c for c in table if c.startswith("win_"))]]

    labels = labels_of(rows)
    answers = rows.groupby(["semantic_label", "prosody_label", "winner"]).size().unstack(fill_value=0)
    answers = answers.reindex(columns=labels, fill_value=0).add_prefix("answers_").reset_index()
    order = {label: i for i, label in enumerate(labels)}
    cells = by_group(rows.sort_values(["semantic_label", "prosody_label"], key=lambda c: c.map(order)), list(answers)[:2], cell)
    return cells.merge(answers, on=["semantic_label", "prosody_label"], how="left")


def generated_answers(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row over the clips that answered in free text besides.

    `agreement`: share whose first label word is the label that the first token is read as; `no_label`: share that names none.
    """
    units = clip_units(rows[(rows.layer == rows.layer.max()) & (rows.spoke == 1)])
    said = units.grid("said")
    agreement = (said == units.grid("winner")).astype(float)
    metrics = {"agreement": Metric(agreement, share=True), "no_label": Metric((said == "").astype(float), share=True)}
    return layer_table(units, metrics).drop(columns="layer")


def conflict_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows.semantic_label != rows.prosody_label]
