"""Refuse pairs whose audio spans have lengths that the engine cannot align."""

from collections.abc import Sequence

from tqdm import tqdm

from common.clips.manifest import Sample
from common.clips.pairs import Pair
from common.compute.session import Session
from common.errors import InputError
from common.processes import is_leader


def check_spans(session: Session, pairs: Sequence[Pair], align: str) -> None:
    """Raise InputError where a pair's spans do not fit each other, position by position; splice needs no fit.

    Without `align` to crop or stretch they must be equally long, and text that a processor writes among the audio (seconds) must
    stand at the same places: a state of text in the place of one of audio, or halfway between the two, is no patch of audio.
    """
    if session.engine == "splice":
        return
    spans: dict[Sample, list[int | None]] = {}
    audio_token = session.first.audio_token
    clips = dict.fromkeys(clip for pair in pairs for clip in (pair.recipient, pair.donor))
    for sample in tqdm(clips, desc="checking the spans", leave=False, disable=not is_leader()):
        clip = session.encode(sample)
        spans[sample] = clip.ids[0, clip.span].tolist() if audio_token is not None else [None] * clip.span_length
    for pair in pairs:
        a, b = spans[pair.recipient], spans[pair.donor]
        if len(a) != len(b) and align == "splice":
            raise InputError(
                f"{pair.pair_id}: spans of unequal length: the donor has {len(b)} audio tokens, the recipient {len(a)}; this "
                f"model is patched by {session.engine}, which needs equal ones: --align crop or --align stretch makes them equal"
            )
        text = any(token != audio_token for token in (*a, *b))
        if text and (any(x != y for x, y in zip(a, b)) or (align == "stretch" and len(a) != len(b))):
            raise InputError(
                f"{pair.pair_id}: the processor writes text among the audio, which with --align {align} would not fall on the "
                "same places in donor and recipient"
            )
