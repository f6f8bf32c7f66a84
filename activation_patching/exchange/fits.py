"""For each pair, fit its label's subspace at every layer on clips with other texts and speakers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from tqdm import tqdm

from activation_patching.choose import HeldOutClips
from activation_patching.intervention import InterventionSpec
from common.clips.manifest import Sample
from common.clips.pairs import Pair
from common.compute.session import Session
from common.errors import InputError
from common.model.encoding import EncodedClip
from common.patching.leace import Subspace, learn
from common.processes import is_leader
from common.tracing.trace import states_at

_KEPT = 64  # pairs of parts whose subspaces are kept in memory at a time: those of a recipient's pairs come one after the other


@dataclass(frozen=True)
class PairSubspaces:
    """At every layer the subspace of a pair's label and a random one of its rank; `decoded`: what it decodes."""

    own: dict[int, Subspace]
    random: dict[int, Subspace]
    decoded: list[int]


def positions(clip: EncodedClip, at: str) -> slice:
    """Return the positions of a clip that are edited: its audio span, or the last one, where the answer is read."""
    last = clip.ids.shape[1] - 1
    return clip.span if at == "span" else slice(last, last + 1)


def fit_subspaces(
    session: Session, held_out: HeldOutClips, spec: InterventionSpec, *, seed: int
) -> Callable[[Pair], PairSubspaces]:
    """Return what gives the subspaces of a pair; each subspace is learned once for all pairs that leave out the same clips.

    One run of every clip: at the span its mean is learned from, a clip being one sample. Raises InputError where the decoder
    carries several streams, whose states are no single vector.
    """
    states = states_of(session, held_out.clips, spec.at)
    place = {sample.sample_id: i for i, sample in enumerate(held_out.clips)}
    labels = session.readout.labels

    @lru_cache(maxsize=_KEPT)
    def learned(kind: str, key: tuple[int, int]) -> tuple[dict[int, Subspace], dict[int, Subspace]]:
        places = torch.as_tensor(held_out.places(key))
        named = [getattr(held_out.clips[i], f"{kind}_label") for i in places]
        codes = torch.tensor([labels.index(name) for name in named])
        found = [learn(states[places, i], codes, rank=spec.rank or 0, seed=seed + i) for i in session.layers]
        own, random = (dict(zip(session.layers, side)) for side in zip(*found))
        return own, random

    def subspaces(pair: Pair) -> PairSubspaces:
        own, random = learned(pair.kind, held_out.key(pair))
        of_clip = states[place[pair.recipient.sample_id]]
        return PairSubspaces(own, random, [subspace.label(of_clip[layer]) for layer, subspace in own.items()])

    return subspaces


def states_of(session: Session, clips: Sequence[Sample], at: str) -> torch.Tensor:
    """Return [sample, layer, d_model]: what clips are known by at the positions `at`. Raises InputError as fit_subspaces does."""
    seen = tqdm(clips, desc="states to learn from", leave=False, disable=not is_leader())
    return torch.stack([_state(session, sample, at) for sample in seen])


def _state(session: Session, sample: Sample, at: str) -> torch.Tensor:
    """Return [layer, d_model]: what a clip is known by, the mean of its states at the edited positions."""
    clip = session.encode(sample)
    states = states_at(session.lm, clip, positions(clip, at))  # [layer, (stream,) 1, pos, d_model]
    if states.dim() > 4:
        raise InputError(f"--intervention: this decoder carries {states.shape[1]} streams side by side; patch them whole")
    return states[:, 0].float().mean(dim=1).cpu()
