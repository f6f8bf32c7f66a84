"""What a linear probe tells of words and voice from a run's states, beside what the answer says: states to probe.csv.

A probe says that a label is there for a linear readout, on texts and speakers that it has not seen; not that the model uses it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from common.clips.pairs import KINDS
from common.errors import InputError
from common.stats.covariance import Floats
from common.stats.folds import parted
from common.stats.metrics import Metric, gain, layer_table
from common.stats.probes import Plan, Targets, plan, products, told, widening
from common.stats.units import Units, clip_units
from logit_lens.decision import conflict_rows
from logit_lens.states import FILES, POSITIONS, read_states

COLUMNS = ["label", "probe", "position", "layer"]
CUES = {"semantic": "words", "prosody": "voice"}
DEALT = 10  # permutations of each label: the null is their mean


@dataclass(frozen=True)
class Found:
    """What became of every clip: `right` and `bits` [clip, target, position x layer]."""

    right: Floats
    bits: Floats


def probe_tables(out: Path, record: dict[str, Any], rows: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return the table of the run in `out` by its name, where its `record` says that states were kept, and what it lacks."""
    if not record["identity"].get("probe"):
        return {}, []
    table, lacking = probe_table(out, rows, seed=record["identity"]["seed"])
    return {"probe": table}, lacking


def probe_table(out: Path, rows: pd.DataFrame, *, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per label x probe x position x layer of the run in `out`; and what could not be probed, and why.

    All clips are learned from, the conflict clips are counted: `accuracy` is the share of them whose label is told by a probe
    that has seen neither their text nor their speaker (`held_out`), `code_length` what the label costs, in bits (log2 of the
    labels where nothing is known). How often a label is there is no help, so that a guess is right in `chance`, 1 / labels; the
    accuracy itself is plain, not balanced, to stand beside the answers clip by clip. Probes:

    - `states`; beside it `answered`, the share that the lens answers with this label at the layer, `gap` (accuracy less that,
      paired), `unsaid` (accuracy less the share that the model answers, at l = L), and how much more is told than by each other
      probe, `beyond_*`. The bands hold for all layers of both positions at once.
    - `permuted`: labels dealt out anew, the voice's among clips with the same words' label, the words' among texts.
    - `random_weights`: states of the same architecture before any training.
    - `duration_and_level`: of the clip as the model heard it, with their squares and product; it has no layer.
    """
    clips = rows[rows.layer == rows.layer.min()].reset_index(drop=True)
    kinds, lacking = _tellable(clips)
    units = clip_units(conflict_rows(rows))
    nothing = pd.DataFrame(columns=[*COLUMNS, "n", "accuracy"])
    if not kinds or not len(units.firsts):
        return nothing, lacking
    try:
        found = _probes(out, clips, kinds, lacking, seed=seed)
    except InputError as error:
        return nothing, [*lacking, f"no probes: {error}"]
    at = pd.Index(clips.sample_id).get_indexer(units.firsts.sample_id)
    counted = {name: Found(f.right[at], f.bits[at]) for name, f in found.items()}
    tables = [t for place, kind in enumerate(kinds) for t in _tables(units, counted, kind, place, len(kinds), seed=seed)]
    chance = {kind: 1 / clips[f"{kind}_label"].nunique() for kind in kinds}
    table = pd.concat(tables, ignore_index=True)
    table = table.assign(chance=table.label.map(chance), held_out=" and ".join(_parted(clips)))
    return table[[*COLUMNS, *(c for c in table if c not in COLUMNS)]], lacking


def _probes(out: Path, clips: pd.DataFrame, kinds: list[str], lacking: list[str], *, seed: int) -> dict[str, Found]:
    """Return what each probe found; of `states` the labels come first, then `DEALT` times dealt anew. Adds to what is lacking."""
    others = [KINDS[1 - KINDS.index(kind)] for kind in kinds]
    codes, beside = (
        np.stack([pd.factorize(clips[f"{kind}_label"], sort=True)[0] for kind in of], axis=1) for of in (kinds, others)
    )
    true = Targets(codes, beside, codes.max(axis=0) + 1)
    dealt = [codes, *(_dealt(clips, codes, kinds, seed=seed + i) for i in range(DEALT))]
    targets = Targets(np.concatenate(dealt, axis=1), np.tile(beside, DEALT + 1), np.tile(true.labels, DEALT + 1))
    folds = plan(*(clips[c].fillna("") for c in ("text_id", "speaker", "semantic_label")), seed=seed)
    found = {"states": _of_states(out / FILES[0], targets, folds)}
    try:
        found["random_weights"] = _of_states(out / FILES[1], true, folds)
    except InputError as error:
        lacking.append(f"no probe of random weights: {error}")
    return found | {"duration_and_level": _of_clips(clips, true, folds)}


def _tables(units: Units, found: dict[str, Found], kind: str, place: int, kinds: int, *, seed: int) -> Iterator[pd.DataFrame]:
    """Yield the table of each probe of one kind of label, which is the target at `place` of as many as there are `kinds`."""
    states = found["states"]
    right = {name: f.right[:, place] for name, f in found.items()}  # [clip, position x layer]
    bits = {name: f.bits[:, place] for name, f in found.items()}
    right["permuted"], bits["permuted"] = (v[:, kinds + place :: kinds].mean(axis=1) for v in (states.right, states.bits))
    answered = (units.grid("winner") == units.grid(f"{kind}_label")).astype(float)
    widen = widening(units.firsts.text_id.fillna(""), units.firsts[f"{kind}_label"])
    for name in right:
        layers = units.layers if right[name].shape[1] > 1 else np.array([np.nan])
        positions = POSITIONS if len(layers) > 1 else ("clip",)
        wide = replace(units, layers=np.arange(right[name].shape[1]))
        metrics = {"accuracy": Metric(right[name], share=True), "code_length": Metric(bits[name])}
        if name == "states":
            beside = np.tile(answered, len(POSITIONS))
            metrics |= {"gap": gain(right[name] - beside), "unsaid": gain(right[name] - answered[:, -1:])}
            metrics |= {f"beyond_{other}": gain(right[name] - right[other]) for other in right if other != name}
        table = layer_table(wide, metrics, seed=seed, widen=widen)
        if name == "states":
            own = layer_table(wide, {"answered": Metric(beside, share=True)}, seed=seed)
            table = table.assign(**own[[c for c in own if c.startswith("answered")]])
        place_of = {"position": np.repeat(positions, len(layers)), "layer": np.tile(layers, len(positions))}
        yield table.drop(columns="layer").assign(label=kind, probe=name, **place_of)


def _parted(clips: pd.DataFrame) -> tuple[str, ...]:
    return parted(clips.text_id.fillna(""), clips.speaker.fillna(""))


def _tellable(clips: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the kinds of label that can be told on texts and speakers not seen, and why the others cannot."""
    apart = {"texts": "text_id", "speakers": "speaker"}
    kinds, lacking = [], []
    for kind in KINDS:
        labels = clips[f"{kind}_label"]
        reasons = ["all clips have one label"] if labels.nunique() < 2 else []
        for factor in _parted(clips):
            number = clips.groupby(f"{kind}_label")[apart[factor]].nunique()
            rare = number[number < 2]
            reasons += [f"{', '.join(map(repr, rare.index))}: of fewer than two {factor}"] if len(rare) else []
        kinds += [] if reasons else [kind]
        lacking += [f"no probe of the {CUES[kind]}: {'; '.join(reasons)}"] if reasons else []
    return kinds, lacking


def _dealt(clips: pd.DataFrame, codes: np.ndarray, kinds: list[str], *, seed: int) -> np.ndarray:
    """Return the codes [clip, kind] dealt out anew.

    A text has one words' label: these go from text to text, among texts of one and the same voice's label where each text has
    one alone, among all else. The voice's go from clip to clip with the same words' label.
    """
    rng = np.random.default_rng(seed)
    texts = clips.text_id.fillna("")
    voices = clips.groupby(texts).prosody_label.agg(["first", "nunique"])
    dealt = codes.copy()
    for place, kind in enumerate(kinds):
        of = pd.Series(codes[:, place])
        if kind == "prosody":
            dealt[:, place] = of.groupby(clips.semantic_label).transform(lambda x: rng.permutation(x.to_numpy()))
        else:
            of_text = of.groupby(texts).first()
            among = voices["first"] if (voices["nunique"] == 1).all() else pd.Series(0, index=of_text.index)
            dealt[:, place] = texts.map(of_text.groupby(among).transform(lambda x: rng.permutation(x.to_numpy())))
    return dealt


def _of_states(path: Path, targets: Targets, folds: Plan) -> Found:
    """Return what is told from a file of states at each position and layer. Raises InputError where it is of other clips."""
    states = read_states(path)
    if len(states) != len(targets.codes):
        raise InputError(
            f"{path}: it holds {len(states)} clips where lens.csv has {len(targets.codes)}; --overwrite makes it anew"
        )
    if not all(np.isfinite(of_clip).all() for of_clip in states):
        raise InputError(f"{path}: its states are not all finite numbers")
    places = tqdm(list(np.ndindex(states.shape[1:3])), desc=f"probes of {path.stem}", unit="layer", leave=False)
    return _found((states[:, position, layer] for position, layer in places), targets, folds)


def _of_clips(clips: pd.DataFrame, targets: Targets, folds: Plan) -> Found:
    """Return what is told from the length and level of clips, their squares and product: a middle one is no linear matter."""
    features = make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False))
    return _found([features.fit_transform(clips[["seconds", "level"]])], targets, folds)


def _found(vectors: Iterable[np.ndarray], targets: Targets, folds: Plan) -> Found:
    with threadpool_limits(1):  # products of a few hundred clips: two threads take eight times as long as one, or more
        parts = [told(products(of_place), targets, folds) for of_place in vectors]
    return Found(np.stack([part.right for part in parts], axis=-1), np.stack([part.bits for part in parts], axis=-1))
