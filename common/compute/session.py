"""Open a session: check the clips, load the model, choose the answer form, run the self-check."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

from common.clips.manifest import Sample
from common.compute.answer_form import MARK, AnswerForm, answer_form, answer_start, measured_forms, preferred
from common.compute.memory import PrefixCacheStore
from common.digests import digest
from common.errors import CheckFailed, InputError, UnknownBlock
from common.model import ModelChoice
from common.model.device import choose_device, choose_dtype, quantised, read_device_map, read_quantization
from common.model.encoding import EncodedClip, check_question, check_system, check_window, encoded, end_span, load_clip
from common.model.head import unsplittable
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import Question, written
from common.model.readout import Readout, check_tokens, resolve_readout
from common.patching.self_check import SelfCheck, self_check
from common.processes import broadcast, is_leader
from common.tracing.prefix_cache import PrefixCache, prefix_cache_of, stored

_LOOKED_AT = 8  # clips around whose audio the prompt is compared before the work


@dataclass(frozen=True)
class Session:
    """A model that has been checked on this run's clips, with the prompt and the readout of the run.

    `answer` is the form in which the labels are read, `start` the tokens that stand in the answer's turn before them. `layers`
    are those that have rows, 0 and L among them. From block `reach` on the blocks keep nothing of what they read: they
    see an earlier block's keys, or none, so that nothing put into the audio span there can reach the answer. `shared` is there
    where several prompts are run and questions can be read over clips' prefix caches.
    """

    lm: AudioLM
    question: Question
    readout: Readout
    answer: AnswerForm
    start: tuple[int, ...]
    first: EncodedClip
    check: SelfCheck
    layers: tuple[int, ...]
    warnings: tuple[str, ...]
    shared: PrefixCacheStore | None = None
    forget_model: Callable[[], None] = lambda: None  # the runs of other prompts are to load it anew

    @property
    def engine(self) -> str | None:
        """How patches are made (patching.ENGINES); none where nothing is patched."""
        return self.check.patch.engine if self.check.patch else None

    @property
    def reach(self) -> int | None:
        return self.check.patch.reach if self.check.patch else None

    def layers_of(self, rows: Sequence[int]) -> list[int]:
        """Return the layers of `rows` of units x layers, by their numbers."""
        return [self.layers[row % len(self.layers)] for row in rows]

    def encode(self, sample: Sample, *, silent: bool = False) -> EncodedClip:
        """Encode a clip, or silence of its length; raises CheckFailed where more than the audio differs from the first clip.

        What stands around a text is not compared: its first and last letters may share a token with it.
        """
        clip = encoded(self.lm, self.question, sample, silent=silent).continued(self.start)
        if self.question.input != "audio":
            return clip
        clip = end_span(clip, len(self.first.tail_ids))
        if difference := _different_around(self.lm, self.first, clip):
            raise CheckFailed(f"{sample.sample_id}: {difference}")
        return clip

    def check_clips(self, *samples: Sample) -> None:
        """Raise InputError for a clip that cannot be read, is not heard whole, or has a label that nobody asked for."""
        for sample in samples:
            if strange := {sample.semantic_label, sample.prosody_label}.difference(self.readout.labels):
                allowed = ", ".join(self.readout.labels)
                raise InputError(f"{sample.sample_id}: labelled {min(strange)}; the model was asked for {allowed}")
        _lengths(self.lm, self.question, samples)

    def prefix_cache(self, sample: Sample, clip: EncodedClip, *, silent: bool = False) -> PrefixCache | None:
        """Return the prefix cache of a clip, encoded by this session, that the runs of several prompts share; else none."""
        if self.shared is None:
            return None
        name = sample.sample_id, silent, tuple(clip.prefix_ids), clip.span_length
        return self.shared.of(name, lambda: stored(prefix_cache_of(self.lm, clip)))

    def describe(self, prompt_name: str) -> str:
        """Say what every unit of the run goes through, and what to beware of."""
        adapters = f", LoRA on: {', '.join(self.lm.adapters)}" if self.lm.adapters else ""
        engine = f", patches by {self.engine}" if self.engine else ""
        layers = f"{len(self.layers)} layers" if self.layers == self.lm.layers else f"layers {' '.join(map(str, self.layers))}"
        line = f"{layers}, prompt {prompt_name}, {self.lm.dtype} on {self.lm.device}{engine}{adapters}"
        return "\n".join([line, self.answer.describe(), *(f"warning: {w}" for w in self.warnings)])

    def warned(self, *warnings: str) -> "Session":
        """Return the session with warnings of what its rows turned out to be; empty ones are none."""
        return replace(self, warnings=(*self.warnings, *(w for w in warnings if w)))

    def identity(self) -> dict[str, Any]:
        """Return what only the loaded model can tell of what identifies a run."""
        return {
            "tokens": digest(f"{self.first.prefix_ids} {self.first.tail_ids} {self.readout.ids}"),
            "answer_form": self.answer.form,
            "engine": self.engine,
            "device": self.lm.device.type,
            "dtype": str(self.lm.dtype).removeprefix("torch."),
            "commit": self.lm.commit,
        }

    def facts(self) -> dict[str, Any]:
        """Return what run.json says of the session."""
        return {
            "prompt_text": self.question.prompt,
            "label_tokens": dict(zip(self.readout.labels, self.readout.tokens)),
            "before_the_answer": self.lm.processor.tokenizer.decode(list(self.start)) if self.start else "",
            "answer_form": self.answer.record(),
            "labels_said": self.answer.said,
            "mark": None if self.answer.said else MARK,
            "model_class": type(self.lm.model).__name__,
            "adapters": self.lm.adapters,
            "quantised": quantised(self.lm.model),
            "parameters": sum(weights.numel() for weights in self.lm.model.parameters()),
            "blocks": len(self.lm.blocks),
            "blocks_that_keep_what_they_read": self.reach,
            "engine": self.engine,
            "self_check": self.check.figures(),
            "warnings": self.warnings,
        }


def load(model: ModelChoice) -> AudioLM:
    """Load the model asked for, on its device and in its dtype. Raises InputError as load_model does."""
    device = choose_device(model.device)
    dtype = choose_dtype(model.dtype, device)
    lm = load_model(
        model.name,
        device=device,
        dtype=dtype,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        attention=model.attention,
        device_map=read_device_map(model.device_map),
        quantization=read_quantization(model.quantization, device, dtype),
    )
    return replace(lm, trim=model.trim, level=model.level)


def open_session(
    model: ModelChoice,
    question: Question,
    samples: Sequence[Sample],
    *,
    engines: Sequence[str],
    layers: Sequence[int] | None = None,
    shared: PrefixCacheStore | None = None,
    pool: Sequence[Sample] | None = None,
    form: str | None = None,
) -> Session:
    """Check every clip, load the model and check it on some of the clips. Raises InputError or CheckFailed; writes nothing.

    `engines` are the ways of patching that the run may use, the first that holds is taken; none for a run that patches nothing.
    `layers` are those to have rows, beside 0 and L; all by default. `shared` is what the runs of several prompts share. The
    form of the answer is measured on some of `pool`, all clips that the run could use, unless an earlier start has recorded its
    `form`.
    """
    lm = shared.of("model", lambda: (load(model), 0)) if shared else load(model)
    lm = replace(lm, thinking=question.thinking)
    at = lm.layers if layers is None else tuple(sorted({0, *layers, len(lm.blocks)}))
    if at[-1] > len(lm.blocks):
        raise InputError(f"--layers {at[-1]}: the model has {len(lm.blocks)} blocks, so layers are 0 to {len(lm.blocks)}")
    clips, partner, longest = _looked_at(lm, question, samples, model.name)
    start = answer_start(lm, question, clips[samples[0]].tail_ids)
    answer = _form(lm, question, samples if pool is None else pool, form, shared)
    readout = resolve_readout(lm.processor.tokenizer, [*clips[samples[0]].tail_ids, *start], question, answer.form)
    start += readout.lead
    check_tokens(lm, clips[samples[0]].continued(start), readout)
    first, *others = (clips[s].continued(start) for s in (samples[0], *dict.fromkeys((partner, longest))))
    try:
        check = self_check(lm, first, others, tokens=readout.ids, engines=engines, layers=at, prefix_caches=shared is not None)
    except UnknownBlock as error:
        raise InputError(f"--model {model.name}: {error}; this kind of decoder is not supported yet") from None
    behind_audio = check.from_prefix_cache is not None and check.from_prefix_cache <= check.tolerance
    session = Session(lm, question, readout, answer, start, first, check, at, (), shared if behind_audio else None)
    if shared is not None:
        session = replace(session, forget_model=lambda: shared.drop("model"))
    return session.warned(*answer.warnings, *_cautions(lm, check, alone=len(samples) == 1))


def _looked_at(
    lm: AudioLM, question: Question, samples: Sequence[Sample], name: str
) -> tuple[dict[Sample, EncodedClip], Sample, Sample]:
    """Check every clip, and what stands around the audio of some; return these encoded, a partner for the first, and the longest.

    A clip as long as the first makes the stricter check; else the last one serves, or the first itself if alone. A text as
    long as the first may be the same, which makes no contrast. The longest is what a window of attention would cut.
    """
    lengths = _lengths(lm, question, samples)
    like = question.input == "audio"
    partner = next((s for s, n in zip(samples[1:], lengths[1:]) if (n == lengths[0]) == like), samples[-1])
    longest = samples[lengths.index(max(lengths))]
    some = samples[:: max(1, len(samples) // _LOOKED_AT)][:_LOOKED_AT]
    clips = {s: encoded(lm, question, s) for s in dict.fromkeys((samples[0], partner, longest, *some))}
    if question.system is not None:
        check_system(lm, clips[samples[0]], encoded(lm, replace(question, system=None), samples[0]))
    if question.input == "audio":
        clips = _alike_around(lm, clips, name)
        check_question(lm, clips[samples[0]], question.prompt)
    return clips, partner, longest


def _form(
    lm: AudioLM, question: Question, pool: Sequence[Sample], recorded: str | None, shared: PrefixCacheStore | None
) -> AnswerForm:
    """Return the form of the answer, measured once for all prompts of a start; of several processes the first one's counts."""
    measured: dict[str, float] = {}
    if recorded is None:

        def measure() -> tuple[dict[str, float], int]:
            return measured_forms(lm, question, pool), 0

        measured = shared.of(("forms", question.form_prompt), measure) if shared else measure()[0]
    form = broadcast(recorded or preferred(measured))
    return answer_form(lm, question, pool, form, measured)


def _alike_around(lm: AudioLM, clips: dict[Sample, EncodedClip], name: str) -> dict[Sample, EncodedClip]:
    """Return clips with what differs behind their audio in their spans; raise InputError where more differs around it."""
    tail = min(len(clip.tail_ids) for clip in clips.values())
    clips = {sample: end_span(clip, tail) for sample, clip in clips.items()}
    one, *others = clips
    for sample in others:
        if difference := _different_around(lm, clips[one], clips[sample]):
            raise InputError(f"--model {name}: {one.sample_id} and {sample.sample_id}: {difference}")
    return clips


def _different_around(lm: AudioLM, first: EncodedClip, clip: EncodedClip) -> str:
    """Say how the tokens around a clip differ from those around the first; "" where they do not."""
    for a, b in ((first.prefix_ids, clip.prefix_ids), (first.tail_ids, clip.tail_ids)):
        if a != b:
            texts = " and ".join(repr(lm.processor.tokenizer.decode(ids)) for ids in (a, b))
            return f"the text around the audio differs, as where a chat template tells the length of the clip: {texts}"
    return ""


def _lengths(lm: AudioLM, question: Question, samples: Sequence[Sample]) -> list[int]:
    """Return how long each clip is: in samples of its audio, which is read and heard whole; or in letters, where it is a text."""
    if question.input != "audio":
        return [len(written(question, s)) for s in samples]
    seen = tqdm(samples, desc="checking the audio", leave=False, disable=not is_leader() or len(samples) < 3)
    lengths = [len(load_clip(lm, s.audio)) for s in seen]
    check_window(lm, [s.audio for s in samples], lengths, question.prompt)
    return lengths


def _cautions(lm: AudioLM, check: SelfCheck, *, alone: bool) -> list[str]:
    """Say what to beware of after a self-check that has been passed."""
    cautions = []
    if not alone and check.contrast <= check.tolerance:
        cautions.append("the self-check's two clips give the same answer to within its tolerance: it could not have failed")
    if check.noise:
        cautions.append(
            f"the model adds noise to what it hears; every run here draws the same, and with another draw the answer to one clip "
            f"differs by {check.noise:.2g} where two clips differ by {check.contrast:.2g}"
        )
    if settings := quantised(lm.model):
        cautions.append(
            f"the weights are quantised ({settings}): what is found here holds for these, not for the unquantised model"
        )
    if lm.dtype != torch.float32 and (reason := unsplittable(lm)):
        cautions.append(f"the answer is read in {lm.dtype}, in which close calls tie, not in float32: {reason}")
    if check.patch and check.patch.row_0 is not None and not check.patch.row_0 <= check.tolerance:
        cautions.append(
            f"row 0 is not the donor's answer: they differ by {check.patch.row_0:.2g} where two clips differ by "
            f"{check.contrast:.2g}; some of the recipient's audio enters the decoder beside h_0"
        )
    return cautions
