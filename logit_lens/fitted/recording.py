"""Record the states that probes are fitted on, and those of a model with random weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from tqdm import tqdm

from common import processes
from common.clips.manifest import Sample
from common.compute.session import Session
from common.errors import InputError
from common.files import remove
from common.model.lm import AudioLM
from common.tracing.trace import lens_and_states
from logit_lens.encoder.states import StageStates, open_stages
from logit_lens.fitted.state_file import FILES, States


@dataclass(frozen=True)
class Recorder:
    """The files for the decoder's `states` of a run's clips, and for the `stages` before these."""

    states: States
    stages: StageStates

    def whole(self, clips: set[str]) -> set[str]:
        return self.states.whole(self.stages.file.whole(clips))

    def cut(self) -> list[str]:
        return [self.states.cut(), self.stages.file.cut()]


def open_states(session: Session, samples: Sequence[Sample], out: Path) -> tuple[Recorder, Recorder]:
    """Return the files in `out` for the states of the `samples`, and for those with random weights.

    The first clip of the session tells their shape. Raises InputError where there is no audio.
    """
    if session.question.input != "audio":
        raise InputError(f"--probe: not with --input {session.question.input}, which has no audio span")
    _, states = lens_and_states(session.lm, session.first, session.readout.ids, layers=session.layers)
    clips = tuple(s.sample_id for s in samples)
    stages = open_stages(session, clips, out)
    trained, untrained = (Recorder(States(out / file, clips, tuple(states.shape)), s) for file, s in zip(FILES, stages))
    return trained, untrained


def record_untrained(session: Session, samples: Sequence[Sample], files: tuple[Recorder, Recorder], *, seed: int) -> list[str]:
    """Record the states of the model with random weights, which it is left with; return warnings of both files.

    Goes on where an interrupted run stopped. Every process draws the same weights.
    """
    trained, untrained = files
    states, clips = untrained.states, {sample.sample_id for sample in samples}
    left = processes.broadcast(clips - untrained.whole(clips) if processes.is_leader() else None)
    reason = draw_weights(session.lm, seed=seed) if left else ""
    session.forget_model()
    if reason:
        processes.wait()
        for file in (states, untrained.stages.file):
            remove(file.path)  # zeros would be taken for what random weights tell
        return [f"no control with random weights: {reason}", *trained.cut()]
    own = processes.part_of([s for s in samples if s.sample_id in left])
    for sample in tqdm(own, desc=states.path.stem, unit="clip", disable=not processes.is_leader()):
        clip = session.encode(sample)
        with untrained.stages.recorded(session, sample, clip):
            _, found = lens_and_states(session.lm, clip, session.readout.ids, layers=session.layers)
        states.write(sample.sample_id, found.cpu().numpy())
    processes.wait()
    return [*trained.cut(), *untrained.cut()]


@torch.no_grad()
def draw_weights(lm: AudioLM, *, seed: int) -> str:
    """Draw all weights of a model anew, in place, as its class does before any training; return why that cannot be, or ""."""
    model = lm.model
    weights = dict(lm.blocks.named_parameters())
    if lm.adapters:
        return f"it hears through LoRA ({', '.join(lm.adapters)})"
    if getattr(model, "hf_quantizer", None) is not None or not all(w.is_floating_point() for w in weights.values()):
        return "its weights are quantised"
    if any(w.is_meta for w in weights.values()):
        return "some of its weights are kept off the device"
    before = {name: w.flatten()[:64].clone() for name, w in weights.items() if w.dim() > 1}
    for part in chain(model.modules(), model.parameters(), model.buffers()):
        if hasattr(part, "_is_hf_initialized"):  # transformers' mark of what must not be drawn again
            del part._is_hf_initialized
    torch.manual_seed(seed)
    model.initialize_weights()
    same = [name for name, old in before.items() if torch.equal(old, weights[name].flatten()[:64])]
    return f"its class does not draw {len(same)} of its blocks' weights, the first is {same[0]}" if same else ""
