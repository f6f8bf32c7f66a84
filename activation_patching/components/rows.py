"""Patch each head, attention and MLP of a pair; make the rows of components.csv."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from activation_patching.components.checks import check_components, no_attribution
from common.clips.manifest import Sample
from common.clips.pairs import Pair
from common.components.attribution import Attribution, attribute
from common.components.submodules import Parts, find_parts
from common.components.substitution import Activations, Component, activations, components_of, patch_components
from common.compute.activation_cache import ActivationCache, in_chunks
from common.compute.memory import cache_bytes
from common.compute.session import Session
from common.errors import CheckFailed, InputError, UnknownBlock
from common.model.encoding import before_last
from common.model.readout import tied
from common.patching.free_text import NextToken, Tokens
from common.patching.tail_pass import Reading, last_of, tail_of
from common.tracing.prefix_cache import prefix_cache_of
from common.tracing.tolerance import check_finite, largest_difference

_MAX_TEXTS = 256  # in a pass, each with the logits of the vocabulary
_MAX_ROWS = {False: 256, True: 1024}  # of a pass over the tail; of one over the last token alone
_SHARED = ("text_id", "speaker", "source", "semantic_label", "prosody_label")


@dataclass(frozen=True)
class Patch:
    """One kind of part of a pair: a `part` of every block, "head_3", "attention" or "mlp", at the last token or over the tail."""

    pair: Pair
    part: str
    half: int

    @property
    def name(self) -> str:
        return f"{self.pair.pair_id}|{self.part}"

    @property
    def at_last(self) -> bool:
        return not self.part.endswith("_tail")

    def components(self, parts: Sequence[Parts]) -> list[Component]:
        kind, _, number = self.part.removesuffix("_tail").partition("_")
        return components_of(parts, kind, int(number or 0))


@dataclass(frozen=True)
class OwnRun:
    """A clip's own run: what it keeps at its two readings, what its parts do, the label logits [label] of its answer.

    `adds`: what its parts add to them by themselves; none where that is not asked for, or cannot be told.
    """

    tail: Reading | None
    last: Reading | None
    does: Activations
    label_logits: torch.Tensor
    adds: Attribution | None = None

    @property
    def nbytes(self) -> int:
        return self.does.nbytes + sum(r.nbytes for r in (self.tail, self.last) if r)

    def reading(self, *, at_last: bool) -> Reading:
        reading = self.last if at_last else self.tail
        assert reading is not None, "what is light has no readings"
        return reading

    def donor(self) -> "OwnRun":
        """Return what a donor needs of it: all but the readings, which are most of it."""
        return OwnRun(None, None, self.does, self.label_logits)

    def to(self, device: torch.device | str) -> "OwnRun":
        tail, last = (r and r.to(device) for r in (self.tail, self.last))
        return OwnRun(tail, last, self.does.to(device), self.label_logits, self.adds)


def maker(
    session: Session, groups: Sequence[list[Patch]], parts: Sequence[Parts], *, cache_gb: float | None
) -> tuple[Callable[[Sequence[list[Patch]]], Iterator[list[dict[str, Any]]]], dict[str, float]]:
    """Return what makes the rows of groups, the patches of a recipient each, and how far the identities are off on a pair."""
    pair = groups[0][0].pair
    figures = check_components(session, parts, *map(session.encode, (pair.recipient, pair.donor)))
    return partial(component_rows, session, parts=parts, cache_gb=cache_gb), figures


def parts_of(session: Session) -> list[Parts]:
    """Return the parts of the blocks. Raises InputError, before the work, where they cannot be told."""
    try:
        return find_parts(session.lm, session.first, tail_of(session.lm, session.first))
    except UnknownBlock as error:
        raise InputError(f"--intervention components: {error}") from None


def patches_of(pairs: Sequence[Pair], parts: Sequence[Parts], half: dict[str, int]) -> list[Patch]:
    """Return the patches of pairs: every head, attention and MLP at the last token, and the two latter over the whole tail."""
    heads = [f"head_{number}" for number in range(max(p.heads for p in parts))]
    kinds = [*heads, "attention", "mlp", "attention_tail", "mlp_tail"]
    return [Patch(pair, kind, half[pair.recipient.sample_id]) for pair in pairs for kind in kinds]


def component_rows(
    session: Session, groups: Sequence[list[Patch]], *, parts: Sequence[Parts], cache_gb: float | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all patches of a recipient at a time.

    Raises CheckFailed where a recipient's unpatched rows are not its own answer.
    """
    turns, direct = [group[0].pair.recipient for group in groups], not no_attribution(session, parts)
    own = own_runs(session, parts, turns, cache_bytes(cache_gb), direct=direct)
    for group in groups:
        recipient, rows = own.whole(group[0].pair.recipient).to(session.lm.device), []
        for pair in dict.fromkeys(patch.pair for patch in group):
            donor, patches = own.light(pair.donor), [patch for patch in group if patch.pair == pair]
            for at_last in (True, False):
                of_pass = [patch for patch in patches if patch.at_last == at_last]
                found = _patched(session, parts, of_pass, recipient, donor)
                for patch in of_pass:
                    direct_of = partial(_direct, session, parts, patch, recipient, donor)
                    rows += patch_rows(session, patch, found[patch.part], donor.label_logits, direct_of)
        yield rows


def blocks_of(session: Session) -> tuple[int, ...]:
    """Return the blocks that have rows."""
    return tuple(layer for layer in session.layers if layer < len(session.lm.blocks))


def _direct(
    session: Session, parts: Sequence[Parts], patch: Patch, recipient: OwnRun, donor: OwnRun, block: int
) -> dict[str, float]:
    """Return what a patch does to each label's logit by itself, straight through the residual stream; nothing over the tail."""
    adds, of_block = recipient.adds, parts[block]
    if adds is None or not patch.at_last:
        return {}
    names = [f"direct_{label}" for label in session.readout.labels]
    kind, _, number = patch.part.partition("_")
    if (of_block.mlp if kind == "mlp" else of_block.projection) is None or int(number or 0) >= max(1, of_block.heads):
        return dict.fromkeys(names, 0.0)
    if kind == "mlp":
        change = adds.of_mlp(block, donor.does) - adds.of_mlp(block, recipient.does)
    else:
        of_heads = adds.of_heads(block, donor.does, of_block.heads) - adds.of_heads(block, recipient.does, of_block.heads)
        change = of_heads[:, int(number)] if number else of_heads.sum(dim=-1)
    return dict(zip(names, change.tolist()))


def own_runs(
    session: Session, parts: Sequence[Parts], turns: Sequence[Sample], budget: int, *, direct: bool = False
) -> ActivationCache[Sample, OwnRun]:
    """Return the clips' own runs, of which the whole is asked for in `turns`; with what parts add by themselves if `direct`."""

    recipients = set(turns)

    def record(sample: Sample) -> OwnRun:
        clip = session.encode(sample)
        tail = tail_of(session.lm, clip, session.prefix_cache(sample, clip))
        does, logits = activations(session.lm, parts, tail, session.readout.ids)
        check_finite(logits, sample.sample_id)
        last = last_of(session.lm, tail)
        adds = attribute(session.lm, parts, last, session.readout.ids) if direct and sample in recipients else None
        return OwnRun(tail, last, does, logits.cpu(), adds)

    return ActivationCache(
        record,
        light=OwnRun.donor,
        store=lambda run: run.to("cpu"),
        size=lambda run: run.nbytes,
        turns=turns,
        budget=budget // (2 if session.shared else 1),  # the other half is for prefix caches
    )


def _patched(
    session: Session, parts: Sequence[Parts], patches: Sequence[Patch], recipient: OwnRun, donor: OwnRun
) -> dict[str, dict[int, torch.Tensor]]:
    """Return the label logits [2, label] unpatched and patched, by part and block; the patches are of one pass.

    A block without the part stays unpatched.
    """
    blocks, at_last = blocks_of(session), patches[0].at_last
    listed = [(p.part, c) for p in patches for c in p.components(parts) if c.block in blocks]
    both = patched_sets(session, parts, patches[0].pair, [[c] for _, c in listed], (recipient, donor), at_last=at_last)
    unpatched = torch.stack([recipient.label_logits] * 2)
    found = {p.part: dict.fromkeys(blocks, unpatched) for p in patches}
    for (part, component), logits in zip(listed, both):
        found[part][component.block] = logits
    return found


def patched_sets(
    session: Session,
    parts: Sequence[Parts],
    pair: Pair,
    sets: Sequence[Sequence[Component]],
    runs: tuple[OwnRun, OwnRun],
    *,
    at_last: bool,
) -> torch.Tensor:
    """Return the label logits [set, 2, label] of a pair unpatched, and with each set of components the donor's.

    `runs` are the recipient's and the donor's. Raises CheckFailed where the unpatched row is not the recipient's own answer.
    """
    recipient, donor = runs
    reading, does = recipient.reading(at_last=at_last), donor.does.to(session.lm.device)

    def work(some: Sequence[Sequence[Component]]) -> torch.Tensor:
        base, *rows = patch_components(session.lm, parts, reading, does, some, session.readout.ids).cpu()
        check_finite(torch.stack([base, *rows]), pair.pair_id)
        if not (off := largest_difference(base, recipient.label_logits)) <= session.check.tolerance:
            raise CheckFailed(f"{pair.pair_id}: unpatched it is {off:.3g} from the recipient's own run")
        return torch.stack([torch.stack([base, row]) for row in rows])

    return torch.cat(in_chunks(work, sets, _MAX_ROWS[at_last])[0])


def patch_rows(
    session: Session,
    patch: Patch,
    found: dict[int, torch.Tensor],
    donor_logits: torch.Tensor,
    direct: Callable[[int], dict[str, float]] = lambda block: {},
) -> list[dict[str, Any]]:
    """Return a row for each block of a patch, which is its `layer`, or number of heads. `base_*`: the recipient's, unpatched."""
    readout, pair, target = session.readout, patch.pair, session.readout.labels.index(patch.pair.target)
    clips, rows = (("recipient", pair.recipient), ("donor", pair.donor)), []
    for block, (base, logits) in found.items():
        pred_base, pred_patch = readout.answer(base), readout.answer(logits)
        rows.append(
            {
                "patch_id": patch.name,
                "true_pair_id": pair.pair_id,
                "kind": pair.kind,
                "recipient_id": pair.recipient.sample_id,
                "donor_id": pair.donor.sample_id,
                "target": pair.target,
                "part": patch.part,
                "half": patch.half,
                "layer": block,
                **{f"logit_{label}": logit for label, logit in zip(readout.labels, logits.tolist())},
                **{f"base_{label}": logit for label, logit in zip(readout.labels, base.tolist())},
                **direct(block),
                "pred_base": pred_base,
                "pred_donor": readout.answer(donor_logits),
                "pred_patch": pred_patch,
                "flip_to_target": int(pred_patch == pair.target),
                "flip_from_base": int(pred_patch != pred_base),
                "delta_logit": float(logits[target] - base[target]),
                **{f"{role}_{name}": getattr(clip, name) for name in _SHARED for role, clip in clips},
                "tied": int(tied(logits)),
            }
        )
    return rows


def of_parts(session: Session, parts: Sequence[Parts], patches: Sequence[Patch]) -> NextToken:
    """Return what asks one pair with each of its patches; rows are patches x blocks. What is said is behind what is patched."""
    lm, blocks, pair = session.lm, blocks_of(session), patches[0].pair
    clip = session.encode(pair.recipient)
    does, _ = activations(lm, parts, tail_of(lm, session.encode(pair.donor)))
    read = {at_last: before_last(clip) if at_last else clip for at_last in (True, False)}
    caches = {at_last: prefix_cache_of(lm, view) for at_last, view in read.items()}

    def some(said: Tokens, rows: Sequence[int], *, at_last: bool) -> torch.Tensor:
        reading = tail_of(lm, replace(clip.continued(said), span=read[at_last].span), caches[at_last])
        of_rows = [(patches[row // len(blocks)], blocks[row % len(blocks)]) for row in rows]
        sets = [[c for c in patch.components(parts) if c.block == block] for patch, block in of_rows]
        chunks, _ = in_chunks(lambda of: patch_components(lm, parts, reading, does, of, behind=len(said))[1:], sets, _MAX_TEXTS)
        return torch.cat(chunks)

    def next_token(said: Tokens, rows: Sequence[int]) -> torch.Tensor:
        found: dict[int, torch.Tensor] = {}
        for at_last in read:
            if same := [row for row in rows if patches[row // len(blocks)].at_last == at_last]:
                found |= zip(same, some(said, same, at_last=at_last))
        return torch.stack([found[row] for row in rows])

    return next_token
