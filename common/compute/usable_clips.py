"""Leave out clips that the model cannot take."""

from collections import Counter

from tqdm import tqdm

from common.clips.audio import BadClip
from common.clips.manifest import Sample
from common.errors import InputError
from common.model import ModelChoice
from common.model.encoding import beyond_window, load_clip
from common.model.load import load_ears
from common.model.prompts import Question
from common.processes import is_leader


def usable_clips(clips: list[Sample], model: ModelChoice, question: Question) -> tuple[list[Sample], Counter[str]]:
    """Return the clips that can be read and are heard whole, and a count of the others by what is wrong with them.

    The model itself is not loaded: pairs are chosen, and a finished run is known, without it. Raises InputError where no clip is
    left. Of clips that are given as text no audio is read: those that have a text are usable.
    """
    if question.input != "audio":
        kept = [s for s in clips if s.text]
        if not kept:
            raise InputError(f"--skip-bad leaves none of {len(clips)} clips: no row has a text")
        return kept, Counter({"no text": len(clips) - len(kept)})
    ears = load_ears(model.name, revision=model.revision, trust_remote_code=model.trust_remote_code, trim=model.trim)
    lengths: dict[str, int] = {}
    bad: dict[str, BadClip] = {}
    for sample in tqdm(clips, desc="checking the audio", leave=False, disable=not is_leader()):
        try:
            lengths[sample.sample_id] = len(load_clip(ears, sample.audio))
        except BadClip as error:
            bad[sample.sample_id] = error
    readable = [s for s in clips if s.sample_id in lengths]
    if readable:
        paths = [s.audio for s in readable]
        long = {error.path: error for error in beyond_window(ears, paths, list(lengths.values()), question.prompt)}
        bad |= {s.sample_id: long[s.audio] for s in readable if s.audio in long}
    kept, reasons = [s for s in clips if s.sample_id not in bad], Counter(error.reason for error in bad.values())
    if not kept:
        raise InputError(f"--skip-bad leaves none of {len(clips)} clips; the first: {next(iter(bad.values()))}")
    return kept, reasons


def left_out(reasons: Counter[str], of: int) -> str:
    """Say how many of so many clips --skip-bad has left out and why, what is wrong with most of them first; "" for none."""
    listed = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common() if n)
    return f"--skip-bad left out {reasons.total()} of {of} clips: {listed}" if listed else ""
