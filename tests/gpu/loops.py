"""Against what? One forward a layer, written by hand or with nnsight, on the same pairs: how many times slower, same numbers?"""

import importlib.util
from typing import Any

import torch

from common.patching.splice import splice
from common.tracing.trace import record
from tests.bench.bench import time_pair
from tests.bench.measure import fastest
from tests.bench.subject import make_clips
from tests.bench.tools import hook_loop, hook_loop_on_embeddings, nnsight_traces
from tests.gpu.speed import model_of

TOOLS = {"loop of hooks": hook_loop, "loop of hooks, tower once a clip": hook_loop_on_embeddings, "nnsight": nnsight_traces}
LENGTHS = (3, 30)  # seconds of a clip
MOST_LAYERS = 8  # a tool patches at so many layers, spread over all, and is scaled to all


def cases(*, small: bool) -> list[str]:
    return [f"{tool}, {seconds} s" for seconds in (LENGTHS[:1] if small else LENGTHS) for tool in TOOLS]


def measure(case: str, *, small: bool) -> dict[str, Any]:
    """Patch a pair at all layers by splice, and by the tool that the case names."""
    name, _, seconds = case.removesuffix(" s").rpartition(", ")
    if name == "nnsight" and importlib.util.find_spec("nnsight") is None:
        return {"skipped": "nnsight is not installed"}
    lm = model_of("Qwen2-Audio-7B", small=small)
    recipient, donor = make_clips(lm, 2, seconds=1 if small else int(seconds))
    blocks = len(lm.blocks)
    layers = sorted({round(i * (blocks - 1) / (MOST_LAYERS - 1)) for i in range(MOST_LAYERS)})
    traces = [record(lm, clip)[0] for clip in (recipient, donor)]

    def sweep() -> torch.Tensor:
        return splice(lm, traces[1], [traces[0]])[0, :-1]

    sweep()
    own, ours = fastest(sweep, 3), sweep()[layers].float().cpu()
    tool = TOOLS[name](lm)
    states = [tool.record(clip) for clip in (recipient, donor)]
    tool.patch(recipient, states[1], [0])  # the first call is not timed
    _, patching, theirs = time_pair(tool, recipient, donor, layers)
    patching *= blocks / len(layers)
    return {
        "splice, s a pair": own,
        "the tool, s a pair": patching,
        "times slower": patching / own,
        "layers timed": f"{len(layers)} of {blocks}",
        "largest difference of two logits": float((ours - theirs).abs().max()),
        "largest logit": float(ours.abs().max()),
    }
