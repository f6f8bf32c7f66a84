"""Rows of lens.csv to the tables of a run."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.clips.pairs import KINDS
from common.running.output import read_table
from common.stats.metrics import Metric, gain, layer_table
from common.stats.nulls import shuffled_hits
from common.stats.units import by_group, clip_units, label_codes, labels_of
from logit_lens.decision import OUTCOMES, conflict_rows, decision_layer, prior_values
from logit_lens.facts import lens_facts
from logit_lens.words import lens_statements


def lens_tables(rows: pd.DataFrame, *, seed: int) -> dict[str, pd.DataFrame]:
    """Return the tables that the figures and the report are made of, by the names of their files; `labels` at the last layer."""
    return {
        "layers": lens_layers(rows, seed=seed),
        "congruent": congruent_layers(rows, seed=seed),
        "labels": label_table(rows, layer=rows.layer.max(), seed=seed),
        "decision_layer": decision_layer(rows, seed=seed),
        "leave_out": leave_out(rows, seed=seed),
    } | ({"generated": generated_answers(rows, seed=seed)} if "said" in rows else {})


def lens_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per layer over the conflict clips: mean `margin` (logits) and win rates `win_*` (shares of clips).

    - `voice_lead`: win_prosody - win_semantic, paired; at l = L it is the primary outcome of the experiment.
    - `margin_prior`: the margin with the logits shuffled over all conflict clips, what label habits and the composition of the
      clips make of it; `margin_excess` is the margin beyond that.
    - `win_prosody_null`: what the voice would win with the answers shuffled among clips with the same words' label,
      `win_prosody_excess` how much more it wins: 0 where nothing but the words and label habits is at work. `win_semantic_null`
      and `_excess` the same for the words, shuffled among clips with the same voice's label.
    - If the rows have them: means of `mass`, `kl` (nats) and `margin_spread`, median of `best_rank`.
    """

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        units = clip_units(conflict_rows(rows))
        wins = {o: (units.grid("outcome") == o).astype(float) for o in OUTCOMES}
        metrics = {"margin": Metric(units.grid("margin"))}
        metrics |= {f"win_{o}": Metric(won, share=True) for o, won in wins.items()}
        metrics |= {"voice_lead": gain(wins["prosody"] - wins["semantic"])}
        plain = {}
        if labels := labels_of(rows):
            answers = label_codes(units.rows.winner, labels).reshape(len(units.firsts), len(units.layers))
            codes = {kind: label_codes(units.firsts[f"{kind}_label"], labels) for kind in KINDS}
            everywhere = np.ones(answers.shape, dtype=bool)
            for kind, other in (KINDS, KINDS[::-1]):
                null = shuffled_hits(codes[other], answers, codes[kind], everywhere)
                metrics[f"win_{kind}_excess"] = gain(wins[kind] - null)
                plain[f"win_{kind}_null"] = null.mean(axis=0) if len(null) else []
        if (prior := prior_values(units)) is not None:
            metrics["margin_excess"] = Metric(units.grid("margin") - prior)
            plain["margin_prior"] = prior.mean(axis=0) if len(prior) else []
        metrics |= {c: Metric(units.grid(c), share=c == "mass") for c in ("mass", "kl", "margin_spread") if c in rows}
        if "best_rank" in rows:
            plain["best_rank"] = np.median(units.grid("best_rank"), axis=0) if len(units.firsts) else []
        return layer_table(units, metrics, seed=seed).assign(**plain)

    return by_group(rows, ["control"], table)


def congruent_layers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row per layer over the clips whose words and voice agree: `accuracy`, the share answered with their label."""

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        units = clip_units(rows[rows.semantic_label == rows.prosody_label])
        right = (units.rows.winner == units.rows.semantic_label).astype(float)
        return layer_table(units, {"accuracy": Metric(units.grid(right), share=True)}, seed=seed)

    return by_group(rows, ["control"], table)


def label_table(rows: pd.DataFrame, *, layer: int, seed: int) -> pd.DataFrame:
    """Return one row per semantic x prosody label at a layer: `n` clips, win rates with intervals, how often each label is said.

    Congruent clips stand on the diagonal; there a clip answered with its label counts as a win of both.
    """

    def cell(rows: pd.DataFrame) -> pd.DataFrame:
        units = clip_units(rows)
        won = {kind: (units.grid("winner") == units.grid(f"{kind}_label")).astype(float) for kind in KINDS}
        metrics = {f"win_{kind}": Metric(values, share=True) for kind, values in won.items()}
        metrics["win_other"] = Metric(1 - np.maximum(*won.values()), share=True)
        table = layer_table(units, metrics, seed=seed)
        return table[["n", "n_texts", "clusters", "held_fixed", *(c for c in table if c.startswith("win_") and "_band" not in c)]]

    labels, at = labels_of(rows), rows[rows.layer == layer]
    answers = at.groupby(["semantic_label", "prosody_label", "winner"]).size().unstack(fill_value=0)
    answers = answers.reindex(columns=labels, fill_value=0).add_prefix("answers_").reset_index()
    order = {label: i for i, label in enumerate(labels)}
    cells = by_group(at.sort_values(["semantic_label", "prosody_label"], key=lambda c: c.map(order)), list(answers)[:2], cell)
    return cells.merge(answers, on=["semantic_label", "prosody_label"], how="left")


def generated_answers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return one row over the clips that answered in free text besides.

    `agreement`: share whose first label word is the label that the first token is read as; `no_label`: share that names none.
    """
    units = clip_units(rows[(rows.layer == rows.layer.max()) & (rows.spoke == 1)])
    said = units.grid("said")
    agreement = (said == units.grid("winner")).astype(float)
    metrics = {"agreement": Metric(agreement, share=True), "no_label": Metric((said == "").astype(float), share=True)}
    return layer_table(units, metrics, seed=seed)


def agreement(rows: pd.DataFrame, *, seed: int) -> dict[str, dict[str, float]]:
    """Return, for run.json, how the answers in free text agree with the first tokens; nothing where none was asked for."""
    if "said" not in rows:
        return {}
    found = generated_answers(rows, seed=seed).iloc[0]
    return {
        "generated answers": {name: float(found[name]) for name in ("n", "agreement", "agreement_lo", "agreement_hi", "no_label")}
    }


def leave_out(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return the main results without each label (in words or voice) and without each cell: one row per `label`, first "": none.

    A cell is the conflict clips of one label in the words and one in the voice, "happy x sad"; only l = L is told.
    A result that one label or cell makes moves to the other side of 0 without it.
    """

    def without(label: str, gone: "pd.Series[bool]") -> pd.DataFrame:
        kept = rows[~gone]
        last = kept[kept.layer == rows.layer.max()]
        table, decided = lens_layers(last, seed=seed), decision_layer(kept[:0] if label in cells.values else kept, seed=seed)
        columns = [
            c for c in table if c.startswith(("n", "clusters", "held", "win_", "voice_lead", "margin")) and "_band" not in c
        ]
        if len(decided):
            table = table.assign(
                **{c: decided[c].iloc[0] for c in ("decision_layer", "crossing", "crossing_lo", "crossing_hi", "side")}
            )
            columns += ["decision_layer", "crossing", "crossing_lo", "crossing_hi", "side"]
        return table[columns].assign(label=label)

    labels = labels_of(rows)
    cells = rows.semantic_label + " x " + rows.prosody_label
    left_out = {label: (rows.semantic_label == label) | (rows.prosody_label == label) for label in labels}
    left_out |= {cell: cells == cell for cell in cells[rows.semantic_label != rows.prosody_label].unique()}
    tables = [without("", cells.isna())]
    tables += [without(name, gone) for name, gone in left_out.items()] if len(labels) > 2 else []
    table = pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)
    return table[["label", *(c for c in table if c != "label")]]


def headline(out: Path) -> pd.DataFrame:
    """Return the main results of a finished run: `what`, its `unit`, `value`, `lo`, `hi`, the `kind` it is about, `n` and `p`."""
    layers, decision = (read_table(out, name) for name in ("layers", "decision_layer"))
    last, found = layers.iloc[-1], decision.iloc[0]
    rows = [
        (f"{column} at l = L", unit, last[column], last[f"{column}_lo"], last[f"{column}_hi"], kind)
        for column, unit, kind in (
            ("win_semantic", "share of clips", "semantic"),
            ("win_prosody", "share of clips", "prosody"),
            ("voice_lead", "voice - words (share)", "other"),
            ("margin", "logits", "other"),
        )
    ]
    rows.append(("crossing", "layer l", found.crossing, found.crossing_lo, found.crossing_hi, "other"))
    return pd.DataFrame(rows, columns=["what", "unit", "value", "lo", "hi", "kind"]).assign(n=last.n)


def summary(tables: dict[str, pd.DataFrame], given: str = "audio") -> str:
    """Say in a few lines what came out of clips `given` in one of the forms of --input."""
    return "\n".join(s.replace("**", "") for s in lens_statements(lens_facts(tables), given=given))
