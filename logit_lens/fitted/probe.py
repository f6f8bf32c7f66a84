"""Fit probes of words and voice on a run's states; make their tables.

A probe says that a label is there for a linear readout, on texts and speakers that it has not seen; not that the model uses it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from common.clips.pairs import CUES, KINDS
from common.errors import InputError
from common.stats.clustered_means import Floats
from common.stats.layer_tables import Metric, gain, layer_table
from common.stats.probes import Plan, Targets, decoded, plan, products, widening
from common.stats.splits import parted
from common.stats.units import Units, clip_units
from logit_lens.fitted.state_file import FILES, POSITIONS, read_states
from logit_lens.tables import conflict_rows

COLUMNS = ["label", "probe", "position", "layer"]
PERMUTATIONS = 10  # permutations of each label: the null is their mean


def probe_tables(out: Path, record: dict[str, Any], rows: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return the tables of the run in `out` by their names, where its `record` says that states were kept, and what they lack."""
    if not record["identity"].get("probe"):
        return {}, []
    by_layer, means, lacking = decode(out, rows, seed=record["identity"]["seed"])
    return {"probe": by_layer} | ({"decoding": means} if len(means) else {}), lacking


def decode(out: Path, rows: pd.DataFrame, *, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Return one row per label x probe x position x layer of the run in `out`, one row per label, and what could not be probed.

    All clips are learned from, the conflict clips are counted: `accuracy` is the share of them whose label is decoded by a probe
    that has seen neither their text nor their speaker (`held_out`). How often a label is there is no help, so that a guess is
    right in `chance`, 1 / labels; the accuracy itself is plain, not balanced, to stand beside the answers clip by clip. Probes:

    - `states`; beside it `answered`, the share that the lens answers with this label at the layer.
    - `permuted`: labels permuted, the voice's among clips with the same words' label, the words' among texts.
    - `random_weights`: states of the same architecture before any training.
    - `duration_and_level`: of the clip as the model heard it, with their squares and product; it has no layer.

    The row of a label is about the audio span in the mean of the inner layers, of which none is selected: `accuracy`,
    `unanswered` (accuracy minus the share that the model answers with the label) and `beyond_*` each other probe, paired by clip.
    """
    clips = rows[rows.layer == rows.layer.min()].reset_index(drop=True)
    kinds, lacking = decodable(clips)
    units = clip_units(conflict_rows(rows))
    nothing = pd.DataFrame(columns=[*COLUMNS, "n", "accuracy"])
    if not kinds or not len(units.unit_rows):
        return nothing, pd.DataFrame(), lacking
    try:
        found = _probes(out, clips, kinds, lacking, seed=seed)
    except InputError as error:
        return nothing, pd.DataFrame(), [*lacking, f"no probes: {error}"]
    at = pd.Index(clips.sample_id).get_indexer(units.unit_rows.sample_id)
    chance = {kind: 1 / clips[f"{kind}_label"].nunique() for kind in kinds}
    tables, means = [], []
    for place, kind in enumerate(kinds):
        right = {name: of_all[at][:, place] for name, of_all in found.items()}  # [clip, position x layer]
        right["permuted"] = found["states"][at][:, len(kinds) + place :: len(kinds)].mean(axis=1)
        widen = widening(units.unit_rows.text_id.fillna(""), units.unit_rows[f"{kind}_label"])
        tables += [t.assign(label=kind, chance=chance[kind]) for t in _by_layer(units, right, kind, widen)]
        means.append(_mean_of_layers(units, right, kind, widen).assign(label=kind, chance=chance[kind]))
    table = pd.concat(tables, ignore_index=True).assign(held_out=" and ".join(held_apart(clips)))
    return table[[*COLUMNS, *(c for c in table if c not in COLUMNS)]], pd.concat(means, ignore_index=True), lacking


def _probes(out: Path, clips: pd.DataFrame, kinds: list[str], lacking: list[str], *, seed: int) -> dict[str, Floats]:
    """Return what each probe found; of `states` the labels first, then permuted `PERMUTATIONS` times. Adds to what is lacking."""
    true, targets, folds = asked(clips, kinds, seed=seed)
    found = {"states": _of_states(out / FILES[0], targets, folds)}
    try:
        found["random_weights"] = _of_states(out / FILES[1], true, folds)
    except InputError as error:
        lacking.append(f"no probe of random weights: {error}")
    return found | {"duration_and_level": of_clips(clips, true, folds)}


def asked(clips: pd.DataFrame, kinds: list[str], *, seed: int) -> tuple[Targets, Targets, Plan]:
    """Return the labels to be told, the same with those permuted `PERMUTATIONS` times behind them, and the folds."""
    others = [KINDS[1 - KINDS.index(kind)] for kind in kinds]
    codes, beside = (
        np.stack([pd.factorize(clips[f"{kind}_label"], sort=True)[0] for kind in of], axis=1) for of in (kinds, others)
    )
    true = Targets(codes, beside, codes.max(axis=0) + 1)
    permuted = [codes, *(_permuted(clips, codes, kinds, seed=seed + i) for i in range(PERMUTATIONS))]
    targets = Targets(np.concatenate(permuted, axis=1), np.tile(beside, PERMUTATIONS + 1), np.tile(true.labels, PERMUTATIONS + 1))
    return true, targets, plan(*(clips[c].fillna("") for c in ("text_id", "speaker", "semantic_label")), seed=seed)


def _by_layer(units: Units, right: dict[str, Floats], kind: str, widen: float) -> Iterator[pd.DataFrame]:
    """Yield the table of each probe of one kind of label, from what it has `right` [clip, position x layer]."""
    answered = (units.grid("winner") == units.grid(f"{kind}_label")).astype(float)
    for name, found in right.items():
        layers = units.layers if found.shape[1] > 1 else np.array([np.nan])
        positions = POSITIONS if len(layers) > 1 else ("clip",)
        wide = replace(units, layers=np.arange(found.shape[1]))
        table = layer_table(wide, {"accuracy": Metric(found, share=True)}, widen=widen)
        if name == "states":
            table = table.assign(answered=np.tile(answered.mean(axis=0), len(POSITIONS)))
        yield table.assign(probe=name, position=np.repeat(positions, len(layers)), layer=np.tile(layers, len(positions)))


def _mean_of_layers(units: Units, right: dict[str, Floats], kind: str, widen: float) -> pd.DataFrame:
    """Return the row of a label: the audio span, in the mean of the inner layers."""
    layers = len(units.layers)
    inner = slice(1, layers - 1) if layers > 2 else slice(0, layers)
    span = POSITIONS.index("span") * layers
    mean = {
        name: (found if found.shape[1] == 1 else found[:, span : span + layers][:, inner]).mean(axis=1, keepdims=True)
        for name, found in right.items()
    }
    answered = (units.grid("winner") == units.grid(f"{kind}_label")).astype(float)[:, -1:]
    metrics = {"accuracy": Metric(mean["states"], share=True), "unanswered": gain(mean["states"] - answered)}
    metrics |= {f"beyond_{other}": gain(mean["states"] - mean[other]) for other in mean if other != "states"}
    return layer_table(replace(units, layers=units.layers[:1]), metrics, widen=widen).drop(columns="layer")


def held_apart(clips: pd.DataFrame) -> tuple[str, ...]:
    return parted(clips.text_id.fillna(""), clips.speaker.fillna(""))


def decodable(clips: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the kinds of label that can be decoded on texts and speakers not seen, and why the others cannot."""
    apart = {"texts": "text_id", "speakers": "speaker"}
    kinds, lacking = [], []
    for kind in KINDS:
        labels = clips[f"{kind}_label"]
        reasons = ["all clips have one label"] if labels.nunique() < 2 else []
        for factor in held_apart(clips):
            number = clips.groupby(f"{kind}_label")[apart[factor]].nunique()
            rare = number[number < 2]
            reasons += [f"{', '.join(map(repr, rare.index))}: of fewer than two {factor}"] if len(rare) else []
        kinds += [] if reasons else [kind]
        lacking += [f"no probe of the {CUES[kind]}: {'; '.join(reasons)}"] if reasons else []
    return kinds, lacking


def _permuted(clips: pd.DataFrame, codes: np.ndarray, kinds: list[str], *, seed: int) -> np.ndarray:
    """Return the codes [clip, kind] permuted.

    A text has one words' label: these go from text to text, among texts of one and the same voice's label where each text has
    one alone, among all else. The voice's go from clip to clip with the same words' label.
    """
    rng = np.random.default_rng(seed)
    texts = clips.text_id.fillna("")
    voices = clips.groupby(texts).prosody_label.agg(["first", "nunique"])
    permuted = codes.copy()
    for place, kind in enumerate(kinds):
        of = pd.Series(codes[:, place])
        if kind == "prosody":
            permuted[:, place] = of.groupby(clips.semantic_label).transform(lambda x: rng.permutation(x.to_numpy()))
        else:
            of_text = of.groupby(texts).first()
            among = voices["first"] if (voices["nunique"] == 1).all() else pd.Series(0, index=of_text.index)
            permuted[:, place] = texts.map(of_text.groupby(among).transform(lambda x: rng.permutation(x.to_numpy())))
    return permuted


def states_of(path: Path, clips: int) -> np.memmap:
    """Return the states in a file. Raises InputError where it is of other clips, or has what is no number."""
    states = read_states(path)
    if len(states) != clips:
        raise InputError(f"{path}: it holds {len(states)} clips where lens.csv has {clips}; --overwrite makes it anew")
    if not all(np.isfinite(of_clip).all() for of_clip in states):
        raise InputError(f"{path}: its states are not all finite numbers")
    return states


def _of_states(path: Path, targets: Targets, folds: Plan) -> Floats:
    """Return what is told from a file of states at each position and layer."""
    states = states_of(path, len(targets.codes))
    places = tqdm(list(np.ndindex(states.shape[1:3])), desc=f"probes of {path.stem}", unit="layer", leave=False)
    return found_in((states[:, position, layer] for position, layer in places), targets, folds)


def of_clips(clips: pd.DataFrame, targets: Targets, folds: Plan) -> Floats:
    """Return what is decoded from the length and level of clips, their squares and product: a middle one is no linear matter."""
    features = make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False))
    return found_in([features.fit_transform(clips[["seconds", "level"]])], targets, folds)


def found_in(vectors: Iterable[np.ndarray], targets: Targets, folds: Plan, *, rank: int | None = None) -> Floats:
    """Return what is told from the vectors [clip, width] of each place: [clip, target, place]."""
    with threadpool_limits(1):  # products of a few hundred clips: two threads take eight times as long as one, or more
        return np.stack([decoded(products(of_place), targets, folds, rank=rank) for of_place in vectors], axis=-1)
