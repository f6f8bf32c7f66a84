"""Ask the model to transcribe scaled clips, and count word errors; make the rows of transcribed.csv."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from activation_patching.exchange.edits import of_edits
from activation_patching.free_text.rows import texts_of
from activation_patching.scale.curves import OWN, RUN, TRANSCRIBED, Curve, Place
from activation_patching.scale.edits import edit_of_curve
from activation_patching.scale.fits import Fits, on_device
from common.clips.manifest import Sample
from common.compute.answer_form import answer_start
from common.compute.session import Session
from common.model.encoding import encoded
from common.patching.leace import scale_of
from common.run.run_folder import Run, Work, make_rows
from common.stats.word_errors import word_errors

PROMPTS = {"": "{audio}Write down the words.", "-zh": "{audio}请写下录音里说的话。"}
MOST_TOKENS = 40


def transcribe(
    session: Session,
    this: Run,
    fits: Fits,
    samples: Sequence[Sample],
    places: Mapping[str, Mapping[int, Place]],
    factors: Sequence[float],
    *,
    language: str,
    at: str,
) -> dict[str, Any]:
    """Make the rows of transcribed.csv at the layers of `places`; return what run.json says of them, if there are any.

    Every cue's own subspace is scaled, in clips whose text is known.
    """
    layers = tuple(sorted({layer for of_halves in places.values() for layer, _ in of_halves.values()}))
    groups = [[Curve(s, kind, OWN, a, RUN) for kind in places for a in factors if a] for s in samples if s.text.strip()]
    if not layers or not groups:
        return {}
    asked = asking_to_transcribe(session, groups[0][0].sample, PROMPTS[language], layers)

    def rows_of(groups: Sequence[list[Curve]]) -> Iterator[list[dict[str, Any]]]:
        for group in groups:
            yield transcribed_rows(asked, fits, group, at=at)

    make_rows(replace(this, rows=this.out / TRANSCRIBED), Work(rows_of, groups, lambda c: c.name, layers), overwrite=False)
    return {"transcribed": {"clips": len(groups), "prompt": PROMPTS[language], "tokens_at_most": MOST_TOKENS}}


def asking_to_transcribe(session: Session, sample: Sample, prompt: str, layers: tuple[int, ...]) -> Session:
    """Return a session that asks for the words, without the answer's beginning that the run may give."""
    question = replace(session.question, prompt=prompt, answer_prefix="")
    clip = encoded(session.lm, question, sample)
    start = answer_start(session.lm, question, clip.tail_ids)
    return replace(session, question=question, start=start, first=clip.continued(start), layers=layers)


def transcribed_rows(asked: Session, fits: Fits, group: Sequence[Curve], *, at: str) -> list[dict[str, Any]]:
    """Return a row for each curve of a clip and layer: what is `transcribed`, its word errors; `*_base`: untouched."""
    sample, count = group[0].sample, len(asked.layers)
    clip, both = asked.encode(sample), on_device(fits.of(sample), asked.lm.device)
    edits = [*(edit_of_curve(curve, both) for curve in group), scale_of(0.0, both[group[0].kind].own)]
    texts = texts_of(asked.lm, of_edits(asked, clip, edits, at=at), len(edits) * count, most=MOST_TOKENS)
    base, said = word_errors(texts[-1], sample.text)
    return [
        {
            "curve_id": group[row // count].name,
            "layer": asked.layers[row % count],
            "transcribed": text,
            "transcribed_base": texts[-1],
            "word_errors": word_errors(text, sample.text)[0],
            "word_errors_base": base,
            "words_said": said,
        }
        for row, text in enumerate(texts[:-count])
    ]
