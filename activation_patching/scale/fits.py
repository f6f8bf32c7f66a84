"""Fit the subspaces of both cues at every layer on clips of other texts and speakers; keep them in a file, for other clips."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from activation_patching.choose import HeldOutClips
from activation_patching.exchange.fits import states_of
from common.clips.manifest import Sample
from common.clips.pairs import KINDS, Pair
from common.compute.session import Session
from common.errors import InputError, first_line
from common.patching.leace import ByLayer, Subspace, learn, nothing

_PARTS = ("left", "right", "mean", "centres")


@dataclass(frozen=True)
class CueSubspaces:
    """At every layer the subspace of a cue's labels, a random one of its rank, and that of the labels in permuted order."""

    own: ByLayer
    random: ByLayer
    permuted: ByLayer


Both = dict[str, CueSubspaces]  # of the words ("semantic") and of the voice ("prosody")


@dataclass(frozen=True)
class Fits:
    """The subspaces that serve a clip, by its sample; and those fitted on all clips, for other data or another question."""

    of: Callable[[Sample], Both]
    all_clips: Both


def fit_all(session: Session, held_out: HeldOutClips, *, at: str, rank: int, seed: int) -> Fits:
    """Fit on one run of every clip. Raises InputError where the decoder carries several streams side by side."""
    clips, labels = held_out.clips, session.readout.labels
    states = states_of(session, clips, at)  # [sample, layer, d_model]
    codes = {kind: torch.tensor([labels.index(getattr(s, f"{kind}_label")) for s in clips]) for kind in KINDS}

    def fit(places: torch.Tensor) -> Both:
        return {kind: _fit(states[places], codes[kind][places], session.layers, rank=rank, seed=seed) for kind in KINDS}

    @lru_cache
    def of_part(part: int) -> Both:
        return fit(torch.as_tensor(held_out.learn[part]))

    return Fits(lambda sample: of_part(held_out.parts[sample.sample_id]), fit(torch.arange(len(clips))))


def made_up(session: Session, *_: Any, **__: Any) -> Fits:
    """Return subspaces of rank 0 in the place of fitted ones, which a plan has not the time for."""
    none = dict.fromkeys(session.layers, nothing(session.lm.model.get_input_embeddings().weight.shape[1]))
    both = dict.fromkeys(KINDS, CueSubspaces(none, none, none))
    return Fits(lambda sample: both, both)


def _fit(states: torch.Tensor, codes: torch.Tensor, layers: tuple[int, ...], *, rank: int, seed: int) -> CueSubspaces:
    shuffled = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))]
    found = [learn(states[:, i], codes, rank=rank, seed=seed + i) for i in layers]
    permuted = [learn(states[:, i], shuffled, rank=rank, seed=seed + i)[0] for i in layers]
    own, random = zip(*found)
    return CueSubspaces(*(dict(zip(layers, subspaces)) for subspaces in (own, random, permuted)))


def own_pairs(samples: list[Sample]) -> list[Pair]:
    """Return each clip as its own donor, of both kinds: what `held_out_clips` checks that enough clips are left for."""
    return [Pair(kind, sample, sample) for kind in KINDS for sample in samples]


def save(path: Path, both: Both, facts: dict[str, Any]) -> None:
    """Write subspaces as safetensors, `kind/layer/which/part`; `facts` say in its header what they were fitted on."""
    tensors = {
        f"{kind}/{layer}/{which}/{part}": getattr(subspace, part).contiguous().clone()  # none shares its memory
        for kind, of_cue in both.items()
        for which in ("own", "random", "permuted")
        for layer, subspace in getattr(of_cue, which).items()
        for part in _PARTS
    }
    save_file(tensors, path, metadata={key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})


def load(path: Path) -> tuple[Both, dict[str, Any]]:
    """Return what `save` wrote. Raises InputError where the file is not of this kind."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        layers = sorted({int(name.split("/")[1]) for name in tensors})
        both = {
            kind: CueSubspaces(*(_of(tensors, kind, which, layers) for which in ("own", "random", "permuted"))) for kind in KINDS
        }
    except (OSError, SafetensorError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"--subspaces {path}: not a file that this experiment writes ({first_line(error)})") from None
    return both, facts


def _of(tensors: dict[str, torch.Tensor], kind: str, which: str, layers: list[int]) -> dict[int, Subspace]:
    return {layer: Subspace(*(tensors[f"{kind}/{layer}/{which}/{part}"] for part in _PARTS)) for layer in layers}


def given(path: Path, session: Session, samples: list[Sample], *, at: str) -> tuple[Fits, str]:
    """Return the subspaces of a file for all clips, and a warning where it was fitted on some of their texts; "" where not.

    Raises InputError where they are of other labels, other positions, another width or other layers than the run's.
    """
    both, facts = load(path)
    if facts.get("labels") != list(session.readout.labels) or facts.get("at") != at:
        raise InputError(
            f"--subspaces {path}: fitted at {facts.get('at')} on the labels {', '.join(facts.get('labels', []))}; "
            f"this run is at {at} with {', '.join(session.readout.labels)}"
        )
    own, width = both["prosody"].own, session.lm.model.get_input_embeddings().weight.shape[1]
    if missing := [layer for layer in session.layers if layer not in own]:
        raise InputError(f"--subspaces {path}: has no layer {missing[0]}; allowed: {', '.join(map(str, sorted(own)))}")
    if (found := len(own[session.layers[0]].mean)) != width:
        raise InputError(f"--subspaces {path}: of a model of width {found}; this one's is {width}")
    seen = {*facts.get("texts", [])}
    known = sum(s.text_id in seen for s in samples)
    warning = f"the subspaces were fitted on the texts of {known} of {len(samples)} clips: decoding and effects flatter them"
    return Fits(lambda sample: both, both), warning if known else ""


def facts_of(session: Session, clips: list[Sample], *, model: str, question: str, at: str, rank: int) -> dict[str, Any]:
    """Return what a file of subspaces says of itself."""
    return {
        "model": model,
        "model_commit": session.lm.commit,
        "prompt": question,
        "at": at,
        "rank": rank,
        "labels": list(session.readout.labels),
        "clips": [s.sample_id for s in clips],
        "texts": sorted({s.text_id for s in clips}),
    }


def on_device(both: Both, device: torch.device) -> Both:
    """Return subspaces on a device, so that not every edit moves them."""

    def moved(subspaces: ByLayer) -> ByLayer:
        return {layer: subspace.to(device) for layer, subspace in subspaces.items()}

    return {kind: replace(s, own=moved(s.own), random=moved(s.random), permuted=moved(s.permuted)) for kind, s in both.items()}
