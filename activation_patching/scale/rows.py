"""Make the rows of `--intervention scale`, a clip at a time, and check its identities on one clip."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from activation_patching.exchange.edits import of_edits
from activation_patching.exchange.fits import positions
from activation_patching.scale.curves import ASKS, RUN, Curve
from activation_patching.scale.edits import Scaled, Untouched, edit_of_curve, scaled
from activation_patching.scale.fits import Fits, on_device
from common.clips.manifest import Sample
from common.compute.session import Session
from common.errors import CheckFailed
from common.model.encoding import encoded
from common.model.prompts import Question
from common.model.readout import check_tokens
from common.patching.free_text import NextToken
from common.patching.layer_batch import sweep
from common.patching.leace import scale_of
from common.patching.rerun import Edit
from common.tracing.tolerance import check_finite, equal, largest_difference
from common.tracing.trace import own_logits


@dataclass(frozen=True)
class Asked:
    """The run's session, and beside it one for each prompt that asks for one cue, by the prompt's name.

    `halves`: of the texts, by the clip's id.
    """

    sessions: Mapping[str, Session]
    halves: Mapping[str, int]
    at: str

    def scaled(
        self, name: str, sample: Sample, edits: Sequence[Edit], size: int | None = None
    ) -> tuple[Untouched, list[Scaled], int]:
        """Return what `edits.scaled` does, of a clip asked in one way."""
        session = self.sessions[name]
        clip = session.encode(sample)
        prefix_cache = session.prefix_cache(sample, clip) if self.at == "last" else None
        return scaled(session, clip, edits, at=self.at, prefix_cache=prefix_cache, batch_size=size)


def asked(session: Session, questions: Mapping[str, Question], sample: Sample, halves: Mapping[str, int], *, at: str) -> Asked:
    """Return the sessions of a run; those of other `questions` read the same label tokens behind their own tails."""
    sessions = {RUN: session}
    for name, question in questions.items():
        first = encoded(session.lm, question, sample).continued(session.start)
        check_tokens(session.lm, first, session.readout)
        sessions[name] = replace(session, question=question, first=first)
    return Asked(sessions, halves, at)


def maker(
    asked: Asked, fits: Fits, groups: Sequence[list[Curve]]
) -> tuple[Callable[[Sequence[list[Curve]]], Iterator[list[dict[str, Any]]]], dict[str, float]]:
    """Return what makes the rows of groups, the curves of a clip each, and how far the identities are off on a clip."""
    return partial(scale_rows, asked, fits), check_scale(asked, fits, groups[0][0].sample)


def scale_rows(asked: Asked, fits: Fits, groups: Sequence[list[Curve]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all curves of a clip at a time. Raises CheckFailed where its untouched row is not its own answer."""
    sizes: dict[str, int] = {}
    for group in groups:
        sample = group[0].sample
        both = on_device(fits.of(sample), asked.sessions[RUN].lm.device)
        found: dict[str, tuple[Untouched, Scaled]] = {}
        own: dict[str, Untouched] = {}
        for name in dict.fromkeys(curve.asked for curve in group):
            curves = [curve for curve in group if curve.asked == name]
            edits = [edit_of_curve(curve, both) for curve in curves]
            own[name], answers, sizes[name] = asked.scaled(name, sample, edits, sizes.get(name))
            untouched = own[name]
            check_finite(untouched.logits, sample.sample_id)
            found |= {curve.name: (untouched, answer) for curve, answer in zip(curves, answers)}
        yield [row for curve in group for row in curve_rows(asked, curve, *found[curve.name], own, both[curve.kind].own)]


def ask(session: Session, fits: Fits, group: list[Curve], *, at: str) -> NextToken:
    """Return what asks a clip for its next token with each of its curves' edits; rows are curves x layers."""
    clip, both = session.encode(group[0].sample), on_device(fits.of(group[0].sample), session.lm.device)
    return of_edits(session, clip, [edit_of_curve(curve, both) for curve in group], at=at)


def curve_rows(
    asked: Asked, curve: Curve, untouched: Untouched, found: Scaled, own: Mapping[str, Untouched], subspaces: Mapping[int, Any]
) -> list[dict[str, Any]]:
    """Return a row for each layer of a curve.

    `base_*`, `pred_base`, `mass_base`: the clip's own answer to the same question. `pred_asked`: to the question for the scaled
    cue. `pred_direct`: the answer where no later block reads the change. `decoded`: the label that the clip's state is nearest to
    in the cue's subspace is its own.
    """
    session = asked.sessions[RUN]
    readout, sample = session.readout, curve.sample
    names = ("sample_id", "text_id", "speaker", "source", "semantic_label", "prosody_label")
    label = readout.labels.index(getattr(sample, f"{curve.kind}_label"))
    for_cue = own.get(ASKS[curve.kind])
    fixed = {"curve_id": curve.name, **{name: getattr(sample, name) for name in names}, "conflict": int(sample.conflict)}
    fixed |= {"half": asked.halves[sample.sample_id], "kind": curve.kind, "control": curve.control, "asked": curve.asked}
    fixed |= {"factor": curve.factor}
    base = {f"base_{name}": logit for name, logit in zip(readout.labels, untouched.logits.tolist())}
    base |= {"pred_base": readout.answer(untouched.logits), "mass_base": untouched.mass}
    base |= {"pred_asked": readout.answer(for_cue.logits) if for_cue else "none"}
    return [
        {
            **fixed,
            "layer": layer,
            **{f"logit_{name}": logit for name, logit in zip(readout.labels, found.logits[i].tolist())},
            **base,
            "pred_scaled": readout.answer(found.logits[i]),
            "pred_direct": readout.answer(found.direct[i]),
            "decoded": int(subspaces[layer].label(untouched.states[i]) == label),
            "mass": float(found.mass[i]),
            "kl": float(found.kl[i]),
        }
        for i, layer in enumerate(session.layers)
    ]


def check_scale(asked: Asked, fits: Fits, sample: Sample) -> dict[str, float]:
    """Return how far the identities are off on a clip; raise CheckFailed beyond the tolerance of the dtype.

    A factor of 0 leaves the states as they are, bit for bit, and so the answer; rows are what full runs give, at two layers; and
    the untouched row is the model's own answer.
    """
    session = asked.sessions[RUN]
    clip, own = session.encode(sample), on_device(fits.of(sample), session.lm.device)["prosody"].own
    nothing, doubled = scale_of(0.0, own), scale_of(2.0, own)
    untouched, (same, rows), _ = asked.scaled(RUN, sample, [nothing, doubled])
    h = untouched.states[0]
    if not torch.equal(nothing(session.layers[0], h), h):
        raise CheckFailed("self-check: a factor of 0 changes the states")
    places = [len(session.layers) // 3, 2 * len(session.layers) // 3]
    layers, ids = [session.layers[i] for i in places], session.readout.ids
    slow = sweep(session.lm, "rerun", clip, positions(clip, asked.at), doubled, layers, ids).cpu()
    model = own_logits(session.lm, clip)[list(ids)].float().cpu()
    figures = {
        "factor 0 - untouched": largest_difference(same.logits, untouched.logits.expand_as(same.logits)),
        "untouched - model": largest_difference(untouched.logits, model),
        f"scale by {session.engine} - rerun": largest_difference(rows.logits[places], slow),
    }
    return {name: equal(name, difference, session.check.tolerance) for name, difference in figures.items()}
