"""The benchmark's loops of hooks, which stand for what splice is timed against, give what splice gives."""

from pathlib import Path

import pytest
import torch

from common.model.encoding import encode_clip
from common.model.lm import AudioLM
from common.model.prompts import PROMPTS
from common.patching.splice import splice
from common.tracing.trace import record
from tests.bench.subject import SMALL, build_model, make_clips
from tests.bench.tools import hook_loop, hook_loop_on_embeddings
from tests.tiny_models.tiny import LAYERS


@pytest.mark.parametrize("make", [hook_loop, hook_loop_on_embeddings])
def test_a_loop_of_hooks_agrees_with_splice(make, lm: AudioLM, manifest: Path) -> None:  # type: ignore[no-untyped-def]
    a, b = (encode_clip(lm, manifest.parent / f"happy_0_{name}_a.wav", PROMPTS["speaker"]) for name in ("sad", "angry"))
    tool = make(lm)
    _, donated = tool.record(a), tool.record(b)
    patched = splice(lm, record(lm, b)[0], [record(lm, a)[0]])[0]
    torch.testing.assert_close(tool.patch(a, donated, range(LAYERS)), patched[:-1], atol=1e-4, rtol=0)
    assert (patched[0] - patched[-1]).abs().max() > 1e-2


def test_the_clips_of_the_benchmark_fit_its_model() -> None:
    lm = build_model(SMALL, device=torch.device("cpu"), dtype=torch.float32)
    a, b = make_clips(lm, 2, seconds=1)
    assert a.span == b.span and a.span.stop - a.span.start == 25
    trace, lens = record(lm, a)
    assert trace.tail.shape[-2] == len(a.tail_ids) and lens.isfinite().all()
    assert (splice(lm, record(lm, b)[0], [trace])[0] - lens[-1]).abs().max() > 1e-3
