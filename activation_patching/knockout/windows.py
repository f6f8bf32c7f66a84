"""Define which tokens are hidden from which, and in which blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.clips.manifest import Sample

EDGES = ("audio_to_question", "audio_to_last", "question_to_last", "audio_to_all")  # whose tokens are hidden from which
CONTROL = "prefix_to_all"
LEAST = 0.5  # of the audio's tokens: a control that hides fewer is none


@dataclass(frozen=True)
class Positions:
    """Where in a prompt the audio is, and what is behind it: the `question` up to the last token, where the answer is read.

    `prefix` is without position 0, on which attention rests where it has nothing to read.
    """

    audio: range
    end: int

    def edge(self, name: str) -> tuple[range, range]:
        """Return the positions of the keys and of the queries of an edge."""
        last = range(self.end - 1, self.end)
        hidden = {"audio": self.audio, "question": range(self.audio.stop, last.start), "prefix": range(1, self.audio.start)}
        seeing = {"question": hidden["question"], "last": last, "all": range(self.audio.stop, self.end)}
        keys, queries = name.split("_to_")
        return hidden[keys], seeing[queries]

    @property
    def control(self) -> bool:
        """Return whether the prefix has enough tokens to be compared with the audio."""
        return len(self.edge(CONTROL)[0]) >= LEAST * len(self.audio)


@dataclass(frozen=True)
class Curve:
    """What becomes of a clip's answer over the layers, with one edge cut in one kind of window."""

    sample: Sample
    edge: str
    window: str

    @property
    def name(self) -> str:
        return f"{self.sample.sample_id}|{self.edge}|{self.window}"


def window_names(around: Sequence[int]) -> tuple[str, ...]:
    """Return the kinds of windows of a run: from l on, up to l, and so many blocks around l."""
    return ("from", "up_to", *(f"around_{n}" for n in around))


def blocks(window: str, layer: int, count: int) -> tuple[int, int]:
    """Return the blocks [start, stop) of a window at `layer`, of `count` blocks; start == stop: none.

    "around_N" has N blocks, block l in the middle, and fewer at the ends; none at l = L.
    """
    if window == "from":
        return layer, count
    if window == "up_to":
        return 0, layer
    width = int(window.removeprefix("around_"))
    start = layer - (width - 1) // 2
    inside = max(0, start), min(count, start + width)
    return inside if layer < count else (count, count)
