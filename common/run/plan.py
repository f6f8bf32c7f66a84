"""`--plan`: what a run would be given, and what it would take, found out without the model's weights."""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from common.clips.manifest import Sample
from common.compute.answer_form import AnswerForm, answer_start, readable_forms
from common.compute.memory import free_memory
from common.compute.session import Session
from common.compute.weightless import WeightlessModel, weightless_model
from common.errors import InputError
from common.model import ModelChoice
from common.model.encoding import EncodedClip, encoded, load_clip
from common.model.prompts import AS_GIVEN, FORMS, Question
from common.patching.engine_check import PatchCheck
from common.patching.self_check import SelfCheck
from common.run.rows import append_rows

_TIMED = 48  # clips whose length is looked at: the one in the middle is timed
_CHECKS = 30  # runs of a clip before the work: the form of the answer, the self-check
_FORM = AnswerForm(AS_GIVEN, 1.0, 0, {}, ())


@dataclass(frozen=True)
class Cost:
    """What the rows of a run take: `seconds`, `rows` of `row_bytes` each, and in main memory `recordings` bytes at the most.

    `files` are the bytes of other files. `beside` says what is not counted.
    """

    seconds: float
    rows: int
    row_bytes: float
    recordings: int = 0
    files: int = 0
    beside: str = ""
    timed: str = "one block timed at the real shape"


@dataclass(frozen=True)
class Plan:
    """A weightless model in a session that can make rows, which mean nothing; `clip` is one of middle length.

    `spans` are the shortest and the longest audio span that was looked at, `load_seconds` what it takes to read a clip, `before`
    the bytes that this process held before there was any model.
    """

    weightless: WeightlessModel
    session: Session
    clip: Sample
    spans: tuple[int, int]
    load_seconds: float
    before: int


def open_plan(
    model: ModelChoice,
    question: Question,
    samples: Sequence[Sample],
    *,
    engines: Sequence[str],
    layers: Sequence[int] | None,
    whole: bool = False,
) -> Plan:
    """Return a plan for a run of `samples`. Raises InputError where the run would be refused for its prompt or its words.

    With `whole` every block of the model works, so that any code of a run can be timed, for the time of all blocks.
    """
    before = psutil.Process().memory_info().rss
    weightless = weightless_model(model, free=lambda device: device_memory(device)[0], whole=whole)
    lm = replace(weightless.lm, thinking=question.thinking)
    some = samples[:: max(1, len(samples) // _TIMED)][:_TIMED]
    began = time.perf_counter()
    heard = question.input == "audio"
    by_length = sorted(some, key=(lambda s: len(load_clip(lm, s.audio))) if heard else (lambda s: len(s.text)))
    load_seconds = (time.perf_counter() - began) / len(some)
    first, last = (encoded(lm, question, by_length[i]) for i in (0, -1))
    start = answer_start(lm, question, first.tail_ids)
    readout = next(iter(readable_forms(lm.processor.tokenizer, [*first.tail_ids, *start], question).values()))
    at = lm.layers if layers is None else tuple(sorted({0, *layers, len(lm.blocks)}))
    start += readout.lead
    shared_keys = getattr(lm.model.config.get_text_config(), "num_kv_shared_layers", 0)  # where splice does not hold
    engine = next((engine for engine in engines if not (shared_keys and engine == "splice")), None)
    if engines and engine is None:
        raise InputError(f"--model {model.name}: its blocks share keys; another --at or --intervention may suit this decoder")
    patched = PatchCheck(engine, len(lm.blocks), {}, 0.0, None, 0.0, "") if engine else None
    check = SelfCheck(0.0, 0.0, 0.0, float("inf"), 0.0, 0.0, None, 0, None, None, None, patched)
    session = Session(lm, question, readout, _FORM, start, first.continued(start), check, at, ())
    spans = first.span_length, last.span_length
    return Plan(weightless, session, by_length[len(by_length) // 2], spans, load_seconds, before)


def written(make: Callable[[], list[dict[str, Any]]]) -> tuple[float, float]:
    """Return how many seconds it takes to make and write some rows, and the bytes of one."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        append_rows(file, rows := make())
        header = file.stat().st_size
        began = time.perf_counter()
        append_rows(file, make())
        return time.perf_counter() - began, (file.stat().st_size - header) / len(rows)


def device_memory(device: torch.device) -> tuple[int, int]:
    """Return the bytes that are free on a device, and those that it has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    return free_memory(), psutil.virtual_memory().total


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held: on a GPU there, else in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def tell(plan: Plan, cost: Cost, counts: dict[str, Any], *, prompts: int) -> str:
    """Return the plan as lines; a run of several `prompts` goes through each."""
    lm, weightless, session = plan.session.lm, plan.weightless, plan.session
    on_gpu = lm.device.type == "cuda"
    working = peak_memory(lm.device) - weightless.held + weightless.weights + (0 if on_gpu else cost.recordings)
    peak = working if on_gpu else max(working, plan.before + weightless.weights + weightless.loading)
    free, total = device_memory(lm.device)
    before = f"; {cost.beside}" if cost.beside else ""
    seconds = prompts * cost.seconds
    lines = [
        *_prompt(lm, session.first, plan.spans),
        *_words(lm, session),
        *_counted(counts),
        f"prompts: {prompts}, a run each" if prompts > 1 else "",
        f"rows: {prompts * cost.rows} of {len(session.layers)} layers, {_size(prompts * cost.rows * cost.row_bytes)} on disk",
        f"other files: {_size(prompts * cost.files)}" if cost.files else "",
        f"memory: weights {_size(weightless.weights)} in {lm.dtype}, recorded clips at most {_size(cost.recordings)}"
        + (" (in main memory)" if on_gpu else ""),
        f"memory at the peak: {_size(peak)}; {lm.device} has {_size(total)}, of which {_size(free + weightless.held)} are free",
        "the model does not fit: it would be spread over other devices, or needs another --device" if peak > total else "",
        f"time on {lm.device}, one process: {_duration(seconds)}, from {cost.timed}{before}",
    ]
    return "\n".join(filter(None, lines))


def _prompt(lm: Any, first: EncodedClip, spans: tuple[int, int]) -> list[str]:
    tokenizer = lm.processor.tokenizer
    before, after = (tokenizer.decode(ids) if ids else "" for ids in (first.prefix_ids, first.tail_ids))
    heard = f"{spans[0]} to {spans[1]} audio tokens" if first.span_length else "no audio"
    return [
        "the prompt as the model gets it:",
        f"  {len(first.prefix_ids)} tokens {before!r}",
        f"  {heard}",
        f"  {len(first.tail_ids)} tokens {after!r}",
    ]


def _words(lm: Any, session: Session) -> list[str]:
    """Return for each form of the answer its label tokens; which form is taken is measured at the start of the run."""
    tokenizer, lead = lm.processor.tokenizer, len(session.readout.lead)
    tail = session.first.tail_ids[: len(session.first.tail_ids) - lead]
    forms = readable_forms(tokenizer, tail, session.question)
    given = session.question.words_as_given
    lines = [
        "label tokens, " + ("as --words gives the words:" if given else "by the form of the answer, which the run measures:")
    ]
    for form, readout in forms.items():
        shown = f" behind {tokenizer.decode(list(readout.lead))!r}" if readout.lead else ""
        lines.append(f"  {form!r}: {', '.join(map(repr, readout.tokens))}{shown}")
    if lost := [form for form in FORMS if form not in forms and not given and form.strip('" ') == "word"]:
        lines.append(f"  not to be told apart in: {', '.join(map(repr, lost))}")
    return lines


def _counted(counts: dict[str, Any], depth: int = 0) -> list[str]:
    """Return what is kept and dropped, with reasons, a line each; nothing of what is none."""
    lines = []
    for name, value in counts.items():
        if isinstance(value, dict):
            inner = _counted(value, depth + 1)
            lines += [f"{'  ' * depth}{name}:", *inner] if inner else []
        elif value and not isinstance(value, list):
            lines.append(f"{'  ' * depth}{name}: {value}")
    return lines


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.2f} hours ({seconds:.0f} s)"


def checks_seconds(plan: Plan, clips: int, run_seconds: float) -> float:
    """Return what comes before the rows: every clip is read once, some are run for the form of the answer and the self-check."""
    return clips * plan.load_seconds + _CHECKS * run_seconds
