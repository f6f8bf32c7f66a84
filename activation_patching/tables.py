"""Rows of patches.csv to the tables of a run, and what they say in words."""

from pathlib import Path

import pandas as pd

from common.landmarks import control_layer, where
from common.metrics import contrast_layers, patch_layers


def controls(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return, for run.json, how far rows 0 are from the donors' own runs and rows L from the recipients', at most."""
    ends = rows.groupby("layer").own_run_difference.max()
    return {"controls": {"row 0 - donor, all pairs": float(ends.iloc[0]), "row L - recipient, all pairs": float(ends.iloc[-1])}}


def patch_tables(rows: pd.DataFrame, *, seed: int) -> dict[str, pd.DataFrame]:
    """Return the tables that the figures and the report are made of, by the names of their files."""
    return {
        "layers": patch_layers(rows, seed=seed),
        "contrast": contrast_layers(rows, seed=seed),
        "control_layer": control_layer(rows, seed=seed),
    }


def summary(layers: pd.DataFrame, control: pd.DataFrame) -> str:
    """Say in a few lines per kind what came out, from the per-layer table and that of the control layer."""
    lines = []
    for kind, table in layers[layers.control == ""].groupby("kind", sort=False):
        first, middle = table.iloc[0], table.iloc[len(table) // 2]
        until = control[(control.control == "") & (control.kind == kind)].iloc[0]
        wrong = layers[(layers.control == "wrong_donor") & (layers.kind == kind)]
        beside = f", of wrong donors {wrong.flip_to_target.iloc[0]:.3f}" if len(wrong) else ""
        lines.append(
            f"{kind} pairs (n = {first.n:.0f}): flip to target {first.flip_to_target:.3f} at l = 0, "
            f"{middle.flip_to_target:.3f} at l = {middle.layer:.0f}, floor {first.floor:.3f}{beside}; "
            f"delta logit {first.delta_logit:+.2f} at l = 0, {middle.delta_logit:+.2f} at l = {middle.layer:.0f}\n"
            f"  {where(until, 'control_layer', 'the audio span stops controlling the answer')}"
        )
    return "\n".join(lines)


def headline(out: Path) -> pd.DataFrame:
    """Return the main results of a finished run: `what`, its `unit`, `value`, `lo`, `hi`, and the `kind` it is about, `n`."""
    layers, until = (pd.read_csv(out / f"{name}.csv").fillna({"control": ""}) for name in ("layers", "control_layer"))
    rows = []
    for _, first in layers[(layers.control == "") & (layers.layer == 0)].iterrows():
        for column, unit in (("flip_to_target", "share of pairs"), ("delta_logit", "logits")):
            values = (first[column], first[f"{column}_lo"], first[f"{column}_hi"])
            rows.append((f"{first.kind} pairs: {column} at l = 0", unit, *values, first.kind))
    for _, found in until[until.control == ""].iterrows():
        values = (found.control_layer, found.control_layer_lo, found.control_layer_hi)
        rows.append((f"{found.kind} pairs: control layer", "layer l", *values, found.kind))
    return pd.DataFrame(rows, columns=["what", "unit", "value", "lo", "hi", "kind"]).assign(n=until.n.max())
