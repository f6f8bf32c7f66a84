"""Probe words and voice at every stage, from log-mel spectrum and encoder to the decoder; make stages.csv."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from tqdm import tqdm

from common.errors import InputError
from common.stats.clustered_means import Floats
from common.stats.layer_tables import Metric, gain, layer_table
from common.stats.probes import Plan, Targets, widening
from common.stats.units import Units, clip_units
from logit_lens.fitted.probe import asked, decodable, found_in, held_apart, of_clips, states_of
from logit_lens.fitted.state_file import FILES, POSITIONS, STAGES, read_states
from logit_lens.tables import conflict_rows

RANK = 64  # principal components that a probe reads of each stage: fewer than any stage is wide, so that none has an advantage


def stage_tables(out: Path, record: dict[str, Any], rows: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return stages.csv of the run in `out` by its name, where states of its encoder were kept, and what it lacks.

    One row per label x probe x stage, in the order of the stages. `log-mel` is the mean log-mel spectrum, `e_k` the mean over the
    clip's own frames of what enters the encoder's block k, `h_l` that of the audio span of the decoder's layer l. Probes as in
    probe.csv, but of RANK principal components. `beyond_permuted`, `drop` (accuracy at the stage before minus that here) and
    `unanswered` are paired by clip; the intervals of the first two hold for all stages together.
    """
    if not record["identity"].get("probe") or not (out / STAGES[0]).exists():
        return {}, []
    clips = rows[rows.layer == rows.layer.min()].reset_index(drop=True)
    kinds, _ = decodable(clips)
    units = clip_units(conflict_rows(rows))
    if not kinds or not len(units.unit_rows):
        return {}, []
    try:
        found = _probes(out, clips, kinds, seed=record["identity"]["seed"])
    except InputError as error:
        return {}, [f"no probes of the encoder: {error}"]
    names = [*encoder_stages(out), *(f"h_{layer}" for layer in units.layers)]
    at = pd.Index(clips.sample_id).get_indexer(units.unit_rows.sample_id)
    tables = []
    for place, kind in enumerate(kinds):
        right = {name: of_all[at][:, place] for name, of_all in found.items()}  # [clip, stage]
        right["permuted"] = found["states"][at][:, len(kinds) + place :: len(kinds)].mean(axis=1)
        chance = 1 / clips[f"{kind}_label"].nunique()
        tables += [t.assign(label=kind, chance=chance) for t in _by_stage(units, right, kind, names)]
    table = pd.concat(tables, ignore_index=True).assign(held_out=" and ".join(held_apart(clips)))
    first = ["label", "probe", "place", "stage"]
    return {"stages": table[[*first, *(c for c in table if c not in first)]]}, []


def encoder_stages(out: Path) -> list[str]:
    """Return the names of the stages before the decoder."""
    return ["log-mel", *(f"e_{k}" for k in range(read_states(out / STAGES[0]).shape[2] - 1))]


def _probes(out: Path, clips: pd.DataFrame, kinds: list[str], *, seed: int) -> dict[str, Floats]:
    """Return what each probe found, [clip, target, stage]; of `states` the labels first, then permuted."""
    true, targets, folds = asked(clips, kinds, seed=seed)
    found = {"states": _of_stages(out, 0, targets, folds), "duration_and_level": of_clips(clips, true, folds)}
    with suppress(InputError):  # probe.csv lacks it too, and says so
        found["random_weights"] = _of_stages(out, 1, true, folds)
    return found


def _of_stages(out: Path, which: int, targets: Targets, folds: Plan) -> Floats:
    n = len(targets.codes)
    encoder, decoder = (states_of(out / names[which], n) for names in (STAGES, FILES))
    vectors = [encoder[:, 0, stage] for stage in range(encoder.shape[2])]
    vectors += [decoder[:, POSITIONS.index("span"), layer] for layer in range(decoder.shape[2])]
    return found_in(tqdm(vectors, desc="probes of the stages", unit="stage", leave=False), targets, folds, rank=RANK)


def _by_stage(units: Units, right: dict[str, Floats], kind: str, names: list[str]) -> Iterator[pd.DataFrame]:
    """Yield the table of each probe of one kind of label, from what it has `right` [clip, stage]."""
    widen = widening(units.unit_rows.text_id.fillna(""), units.unit_rows[f"{kind}_label"])
    together = widen * norm.ppf(1 - 0.025 / len(names)) / norm.ppf(0.975)  # Bonferroni's: all stages are looked at
    answered = (units.grid("winner") == units.grid(f"{kind}_label"))[:, -1:].astype(float)
    for name, of_probe in right.items():
        at = replace(units, layers=np.arange(of_probe.shape[1]))
        table = layer_table(at, {"accuracy": Metric(of_probe, share=True)}, widen=widen).rename(columns={"layer": "place"})
        if name == "states":
            paired = {
                "beyond_permuted": gain(of_probe - right["permuted"]),
                "drop": gain(of_probe[:, [0, *range(len(names) - 1)]] - of_probe),
            }
            found = layer_table(at, paired, widen=together)
            unanswered = layer_table(at, {"unanswered": gain(of_probe - answered)}, widen=widen)
            more = [t[[c for c in t if c.startswith((*paired, "unanswered"))]] for t in (found, unanswered)]
            table = pd.concat([table, *more], axis=1)
        yield table.assign(probe=name, stage=names if len(table) == len(names) else "clip")
