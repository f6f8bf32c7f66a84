"""Measure which form of the label words the model prefers as an answer: "angry", " angry" or "Angry"."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from common.clips.audio import BadClip
from common.clips.manifest import Sample
from common.errors import InputError
from common.model.encoding import EncodedClip, encoded, knows_thinking
from common.model.lm import AudioLM
from common.model.prompts import AS_GIVEN, FORMS, Question, in_form
from common.model.readout import Readout, resolve_readout, tokens_behind

MARK = "labels are not what this model says"
_CLIPS = 8  # on which forms are measured
_THOUGHTS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|channel>", "<channel|>"))  # what opens and closes a thought
_EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class AnswerForm:
    """In which `form` the labels are read, and their `probability` together under the run's own prompt, the mean over `clips`.

    `measured` has the probabilities that the form was chosen by; none for a recorded form. `warnings` say what the model would
    rather do than answer with a label.
    """

    form: str
    probability: float
    clips: int
    measured: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def said(self) -> bool:
        """Tell whether the labels are what the model says: they have half of the probability at least."""
        return self.probability >= 0.5

    def describe(self) -> str:
        form = "as --words gives them" if self.form == AS_GIVEN else f"in the form {self.form!r}"
        mark = "" if self.said else f"; {MARK}"
        return f"labels are read {form}; together they have {self.probability:.2g} of the probability{mark}"

    def record(self) -> dict[str, Any]:
        """Return what run.json says of the form."""
        return {"form": self.form, "probability": self.probability, "clips": self.clips, "of_forms": self.measured}


def measured_forms(lm: AudioLM, question: Question, pool: Iterable[Sample]) -> dict[str, float]:
    """Return the probability of the forms under the question's `form_prompt`, for all prompts of a language the same one.

    Raises InputError where no form can be read.
    """
    clips, tail = _clips(lm, replace(question, prompt=question.form_prompt), pool)
    return probabilities(lm, clips, readable_forms(lm.processor.tokenizer, tail, question))


def answer_form(lm: AudioLM, question: Question, pool: Iterable[Sample], form: str, measured: Mapping[str, float]) -> AnswerForm:
    """Return how the labels fare in `form` under the run's own prompt."""
    clips, tail = _clips(lm, question, pool)
    readout = resolve_readout(lm.processor.tokenizer, tail, question, form)
    probs = [_last_probs(lm, clip, readout.lead) for clip in clips]
    probability = _mean(_of_labels(p, readout) for p in probs)
    first = torch.stack([p[0].cpu() for p in probs]).mean(dim=0)  # [vocab], where the answer starts
    rather = "" if probability >= 0.5 else _rather(lm, first, probability, form, len(clips))
    warnings = tuple(filter(None, (rather, _thinks_first(lm.processor.tokenizer, tail, first))))
    return AnswerForm(form, probability, len(clips), dict(measured), warnings)


def preferred(measured: Mapping[str, float]) -> str:
    """Return the form with the largest probability, of equal ones the first."""
    return max(measured, key=lambda form: measured[form])


def _clips(lm: AudioLM, question: Question, pool: Iterable[Sample]) -> tuple[list[EncodedClip], list[int]]:
    """Return some clips of `pool`, encoded up to where the answer starts, and the tokens of their tail.

    They are those whose ids have the smallest hashes, so the same whatever the limit, the seed, the prompt or the experiment.
    Clips that cannot be read are passed over. Raises InputError where none can.
    """
    clips: list[EncodedClip] = []
    bad: BadClip | None = None
    for sample in sorted(pool, key=lambda s: hashlib.sha256(s.sample_id.encode()).digest()):
        try:
            clips.append(encoded(lm, question, sample))
        except BadClip as error:
            bad = error
        if len(clips) == _CLIPS:
            break
    if not clips:
        raise bad or InputError("no clip to measure the form of the answer on")
    start = answer_start(lm, question, clips[0].tail_ids)
    return [clip.continued(start) for clip in clips], [*clips[0].tail_ids, *start]


def readable_forms(tokenizer: Any, tail_ids: Sequence[int], question: Question) -> dict[str, Readout]:
    """Return the readout of each form in which all label words can be told apart behind the prompt's last tokens.

    Raises InputError, as of the bare words, where there is none.
    """
    readouts: dict[str, Readout] = {}
    errors: list[InputError] = []
    for form in (AS_GIVEN,) if question.words_as_given else FORMS:
        if form != form.lower() and in_form(question.words, form) == in_form(question.words, form.lower()):
            continue  # Chinese has no capitals
        try:
            readouts[form] = resolve_readout(tokenizer, tail_ids, question, form)
        except InputError as error:
            errors.append(error)
    if not readouts:
        raise errors[0]
    return readouts


def probabilities(lm: AudioLM, clips: Sequence[EncodedClip], readouts: Mapping[str, Readout]) -> dict[str, float]:
    """Return for each form the probability of all labels together, the mean over clips; which label wins has no part in it.

    What leads to the labels (a space or a quote of its own) counts with its own probability. A form whose lead alone is less
    likely than another form as a whole is left out: it cannot be the preferred one, and would need runs of its own.
    """
    found: dict[str, float] = {}
    bare = [_last_probs(lm, clip, ()) for clip in clips]
    runs: dict[tuple[int, ...], list[torch.Tensor]] = {(): bare}  # lead -> of each clip [lead + 1, vocab]
    for form, readout in sorted(readouts.items(), key=lambda item: len(item[1].lead)):
        lead = readout.lead
        if lead and _mean(p[-1, lead[0]] for p in bare) <= max(found.values(), default=-1.0):
            continue
        if lead not in runs:
            runs[lead] = [_last_probs(lm, clip, lead) for clip in clips]
        found[form] = _mean(_of_labels(p, readout) for p in runs[lead])
    return found


@torch.inference_mode()
def _last_probs(lm: AudioLM, clip: EncodedClip, lead: tuple[int, ...]) -> torch.Tensor:
    """Return the probabilities [lead + 1, vocab] of what comes at the end of a clip, and behind each token of the lead."""
    logits = lm.model(**clip.continued(lead).inputs, use_cache=False).logits
    return logits[0, -1 - len(lead) :].float().softmax(dim=-1)


def _of_labels(probs: torch.Tensor, readout: Readout) -> torch.Tensor:
    of_lead = [probs[i, token] for i, token in enumerate(readout.lead)]
    return torch.stack([*of_lead, probs[-1, list(readout.ids)].sum()]).prod()


def _mean(values: Iterable[torch.Tensor]) -> float:
    return float(torch.stack([v.cpu() for v in values]).mean())


def answer_start(lm: AudioLM, question: Question, tail_ids: Sequence[int]) -> tuple[int, ...]:
    """Return the tokens that stand in the answer's turn before the answer: the empty thought where it is asked for, the prefix.

    Raises InputError where they do not stand behind the prompt's last tokens, or the model knows no thoughts.
    """
    tokenizer, text = lm.processor.tokenizer, question.answer_prefix
    if not question.thinking and not knows_thinking(lm.processor):
        if len(tokenizer.encode("</think>", add_special_tokens=False)) != 1:
            raise InputError("--no-thinking: neither the chat template nor the tokenizer of this model knows of thoughts")
        open_already = tokenizer.decode(list(tail_ids)).rstrip().endswith("<think>")
        text = ("</think>\n\n" if open_already else _EMPTY_THOUGHT) + text
    return tokens_behind(tokenizer, tail_ids, text, what="--answer-prefix") if text else ()


def _thinks_first(tokenizer: Any, tail_ids: Sequence[int], first: torch.Tensor) -> str:
    """Say that the model would think first: the prompt has opened a thought, or one starts in `first`, probabilities [vocab]."""
    text = tokenizer.decode(list(tail_ids))
    for begin, end in _THOUGHTS:
        opener = tokenizer.encode(begin, add_special_tokens=False)
        if text.rfind(begin) > text.rfind(end) or (len(opener) == 1 and float(first[opener[0]]) >= 0.5):
            return f"this model would think first ({begin}), and is read before any thought; --no-thinking asks it for none"
    return ""


def _rather(lm: AudioLM, first: torch.Tensor, probability: float, form: str, clips: int) -> str:
    best = first.topk(min(5, len(first)))
    listed = ", ".join(
        f"{lm.processor.tokenizer.decode([i])!r} {p:.2f}" for p, i in zip(best.values.tolist(), best.indices.tolist())
    )
    read = "" if form == AS_GIVEN else f", read as {form!r}"
    return (
        f"the label tokens have {probability:.2g} of the probability at l = L{read} (mean of {clips} clips); the model would "
        f"rather say {listed}; --words as it would say them, or another --prompt, may suit it better"
    )
