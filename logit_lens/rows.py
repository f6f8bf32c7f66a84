"""Make the rows of lens.csv: label logits at every layer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.clips.manifest import Sample, choose_speaking
from common.compute.session import Session
from common.errors import InputError
from common.model.encoding import load_clip
from common.model.generation import generated, said
from common.model.readout import Readout, tied
from common.run.run_folder import Work
from common.tracing.tolerance import check_finite
from common.tracing.trace import lens, lens_and_states
from logit_lens.fitted.recording import Recorder, open_states
from logit_lens.fitted.tuned_lens import tuned_lens

Files = tuple[Recorder, Recorder]  # of the model as trained, and with random weights
Maps = Callable[[Sample], Sequence[Callable[[torch.Tensor], torch.Tensor]]]


def work_of(
    session: Session, samples: list[Sample], out: Path, *, lens: str, generate: int, probe: bool, seed: int
) -> tuple[Work, Files | None]:
    """Return what makes the rows of `samples` by the `lens`, of which `generate` clips answer in free text besides.

    And the files of their states, of a run with probes: a clip with rows that lacks its states is made again.
    """
    maps = tuned_lens(session, samples) if lens == "tuned" else None
    speaking = choose_speaking(samples, generate, seed=seed)
    files = open_states(session, samples, out) if probe else None
    make = partial(layers_of, session, maps=maps, speaking=speaking, files=files and files[0])
    return Work(make, [[s] for s in samples], lambda s: s.sample_id, session.layers, files[0].whole if files else set), files


def layers_of(
    session: Session,
    groups: Iterable[list[Sample]],
    *,
    maps: Maps | None = None,
    speaking: frozenset[str] = frozenset(),
    files: Recorder | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of one clip at a time; `maps` are those of the tuned lens.

    With `files` the same forward leaves its states there, before the rows are given out: a clip with rows has its states. The
    rows then say how long (`seconds`) and how loud (`level`, dB of full scale) the clip is that the model heard.

    The clips `speaking` answer in free text besides: their rows have it as `generated`, the label in it as `said`. Raises
    CheckFailed where the model gives no numbers, InputError where it would not speak as it is read: some models take off the
    LoRA adapter that they hear through to answer a text.
    """
    if speaking and session.lm.adapters and session.question.input != "audio":
        raise InputError(f"--generate: not with --input {session.question.input} for a model that hears through a LoRA adapter")
    for sample in chain.from_iterable(groups):
        clip = session.encode(sample)
        maps_of = maps(sample) if maps else ()
        asked = session.lm, clip, session.readout.ids, maps_of, session.layers
        if files:
            with files.stages.recorded(session, sample, clip):
                (logits, label_logits), vectors = lens_and_states(*asked)
        else:
            logits, label_logits = lens(*asked, session.prefix_cache(sample, clip))
        whole = logits.float().logsumexp(dim=-1, keepdim=True)  # a number unless one of the vocabulary is none
        check_finite(torch.cat([label_logits, whole.to(label_logits)], dim=-1), sample.sample_id)
        rows = lens_rows(session.readout, sample, logits, label_logits.cpu(), layers=session.layers)
        if files:
            check_finite(vectors, sample.sample_id)
            files.states.write(sample.sample_id, vectors.cpu().numpy())
            rows = [row | _heard(session, sample) for row in rows]
        if speaking:
            spoke = sample.sample_id in speaking
            text = generated(session.lm, clip) if spoke else ""
            told = {
                "generated": text,
                "said": said(text, session.readout.labels, session.question.bare_words),
                "spoke": int(spoke),
            }
            rows = [row | told for row in rows]
        yield rows


def _heard(session: Session, sample: Sample) -> dict[str, float]:
    wave = load_clip(session.lm, sample.audio).astype(np.float64)
    return {"seconds": len(wave) / session.lm.rate, "level": float(10 * np.log10(np.mean(wave**2) + 1e-20))}


def lens_rows(
    readout: Readout, sample: Sample, logits: torch.Tensor, label_logits: torch.Tensor, *, layers: Sequence[int]
) -> list[dict[str, Any]]:
    """Return one row for each of `layers` of a clip from its lens logits [layer, vocab] and those of the labels [layer, label].

    `winner` is the label with the largest of the label logits, `outcome` says whose label that is (semantic, prosody or
    other; both, where words and voice agree), `margin` is logit[prosody_label] - logit[semantic_label]: above 0 the answer
    follows the voice. `mass` is the labels' share of the probability: it tells whether they mean anything yet, as a largest of a
    few labels is there even where nobody would say one of them. `tied` marks a largest logit that two labels share, of which the
    first is the winner.
    """
    semantic, prosody = readout.labels.index(sample.semantic_label), readout.labels.index(sample.prosody_label)
    outcomes = {sample.semantic_label: "semantic", sample.prosody_label: "prosody" if sample.conflict else "both"}
    rows = []
    for layer, of_labels, mass in zip(layers, label_logits, readout.mass(logits).tolist(), strict=True):
        winner, margin = readout.answer(of_labels), float(of_labels[prosody] - of_labels[semantic])
        rows.append(
            {
                "sample_id": sample.sample_id,
                "semantic_label": sample.semantic_label,
                "prosody_label": sample.prosody_label,
                "layer": layer,
                **{f"logit_{label}": logit for label, logit in zip(readout.labels, of_labels.tolist())},
                "winner": winner,
                "outcome": outcomes.get(winner, "other"),
                "margin": margin,
                "mass": mass,
                "text_id": sample.text_id,
                "speaker": sample.speaker,
                "source": sample.source,
                "tied": int(tied(of_labels)),
            }
        )
    return rows
