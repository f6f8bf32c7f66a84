"""Store a run's states in one memory-mapped file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import InputError, first_line
from common.files import claim

FILES = ("states.npy", "states_random.npy")
STAGES = ("stages.npy", "stages_random.npy")  # of what comes before the decoder
POSITIONS = ("span", "last")
LARGEST = float(np.finfo(np.float16).max)  # 65504: a larger value is kept as this, and counted


@dataclass(frozen=True)
class States:
    """A file to write states to: [clip, position, layer, d_model] in float16, zeros where nothing was written yet.

    `clips` are in this order, `shape` is [position, layer, d_model] of one.
    """

    path: Path
    clips: tuple[str, ...]
    shape: tuple[int, ...]

    def whole(self, clips: set[str]) -> set[str]:
        """Return those of the `clips` whose states are there to their end, of a file that is made ready where it is not."""
        shape = (len(self.clips), *self.shape)
        if not self.path.exists() or read_states(self.path).shape != shape:
            np.lib.format.open_memmap(claim(self.path), mode="w+", dtype=np.float16, shape=shape).flush()  # no room until written
        written = np.any(read_states(self.path)[:, -1, -1], axis=-1)  # h_L of the last position is written last
        return {clip for clip, there in zip(self.clips, written.tolist()) if there and clip in clips}

    def write(self, clip: str, states: np.ndarray) -> None:
        """Write a clip's states [position, layer, d_model].

        As bytes at their place: several processes may, and a full disk is an error here, where a map would end the program.
        """
        kept = np.clip(states, -LARGEST, LARGEST).astype(np.float16)
        if kept.shape != self.shape:
            raise ValueError(f"states {kept.shape} where the file has {self.shape}")
        with open(self.path, "r+b") as file:
            file.seek(read_states(self.path).offset + self.clips.index(clip) * kept.nbytes)
            file.write(kept.tobytes())

    def cut(self) -> str:
        """Say how many values were beyond float16; nothing where none was."""
        count = sum(int((np.abs(of_clip) == LARGEST).sum()) for of_clip in read_states(self.path))
        return (
            f"{self.path.name}: {count} values beyond {LARGEST:.0f}, the largest of float16, were kept as that" if count else ""
        )


def read_states(path: Path) -> np.memmap:
    """Return states [clip, position, layer, d_model], mapped and not loaded. Raises InputError where there are none."""
    try:
        found = np.load(path, mmap_mode="r")
        if found.dtype == np.float16 and found.ndim == 4:
            return found
        reason = f"it holds {found.dtype} {found.shape}"
    except (OSError, ValueError, EOFError) as error:
        reason = first_line(error)
    raise InputError(f"{path}: not a file of states ({reason}); --overwrite makes it anew")
