"""Where does the time go? One pass under torch's profiler: ten rows, each beside the floor that this card sets."""

import gzip
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from common.model.lm import AudioLM
from common.patching.splice import heads_share_keys, splice
from common.tracing.kv_cache import kept_tensors
from common.tracing.trace import record
from tests.bench.measure import fastest, operations, product_peak, timed
from tests.bench.subject import make_clips
from tests.gpu.speed import TOKENS, model_of, pairs_at_once, shape_of

MODEL = "Qwen2.5-Omni-3B"  # whose query heads share keys and values
PATCHING, RECORDING, SHARED_KEYS = "a pass of patching", "a recording", "keys shared by the kernel"
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
HOST = ("HtoD", "DtoH")


@dataclass(frozen=True)
class Work:
    """One piece of work on the GPU: what ran, for which operation of torch, when (microseconds), and how many bytes it copied.

    `kind` is one of products, attention, keys expanded, keys joined, host, others.
    """

    name: str
    kind: str
    start: float
    seconds: float
    bytes: int


def cases(*, small: bool) -> list[str]:
    return [PATCHING, RECORDING, SHARED_KEYS]


def measure(case: str, *, small: bool) -> dict[str, Any]:
    lm = model_of(MODEL, small=small)
    clip, *others = make_clips(lm, 4, seconds=1 if small else 30)
    donor = record(lm, clip, TOKENS)[0]
    batch_size = 2 if small else pairs_at_once(lm)
    recipients = [record(lm, other, TOKENS)[0].recipient() for other in others]
    chosen = [recipients[i % len(recipients)] for i in range(batch_size)]

    def patch() -> torch.Tensor:
        return splice(lm, donor, chosen, TOKENS)

    if case == SHARED_KEYS:
        return shared_keys(patch)
    peak, bandwidth = card(small=small)
    keys = sum(t.nbytes for layer in donor.cache for t in kept_tensors(layer))
    read = sum(p.nbytes for p in lm.blocks.parameters()) + keys
    call = patch if case == PATCHING else lambda: record(lm, clip, TOKENS)
    rows = table(call, peak=peak, bandwidth=bandwidth, read=read)
    return {"matrix peak, TFLOP/s": peak / 1e12, "bandwidth, GB/s": bandwidth / 1e9, "pairs": batch_size, "rows": rows}


@cache
def card(*, small: bool) -> tuple[float, float]:
    """Return the most operations and bytes a second that are measured on this device."""
    lm, shape = model_of(MODEL, small=small), shape_of(MODEL, small=small)
    peak = product_peak(lm, width=shape.width, mlp=shape.mlp, square=256 if small else 8_192)
    return peak, copy_speed(lm, megabytes=8 if small else 1_000)


def table(call: Callable[[], Any], *, peak: float, bandwidth: float, read: int) -> list[list[Any]]:
    """Return ten rows [what, measured, unit, floor], the floor in seconds or none; `read` are bytes that no way spares."""
    call()
    seconds = fastest(call, 3)
    products, attention = operations(call)
    works, launches = profiled(call)

    def spent(*kinds: str) -> float:
        return sum(w.seconds for w in works if w.kind in kinds)

    def megabytes(kind: str) -> float:
        return sum(w.bytes for w in works if w.kind == kind) / 1e6

    host = [w for w in works if w.kind == "host"]
    busy, span = occupied(works)
    return [
        ["the pass, without the profiler", seconds, "s", max((products + attention) / peak, read / bandwidth)],
        ["kernels", len(works) - len(host), f"started by {launches} calls", None],
        ["GPU at work, under the profiler", busy, "s", None],
        ["GPU idle between its first and last work", span - busy, "s", 0.0],
        ["matrix products", spent("products"), "s", products / peak],
        ["attention", spent("attention"), "s", attention / peak],
        ["keys and values, copied for each query head", spent("keys expanded"), "s", 0.0],
        ["keys and values, copied for each row", spent("keys joined"), "s", 0.0],
        ["all other kernels and copies", spent("others"), "s", None],
        ["copies from and to main memory", spent("host"), f"s, {len(host)} of {megabytes('host'):.3g} MB in all", None],
    ]


def profiled(call: Callable[[], Any]) -> tuple[list[Work], int]:
    """Run a call under the profiler; return its works on the GPU (on a CPU: operations) and the number of kernel launches."""
    gpu = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])], record_shapes=True) as recorded:
        timed(call)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json.gz"
        recorded.export_chrome_trace(str(path))
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return works_of(json.load(file)["traceEvents"], of=ON_GPU if gpu else ("cpu_op",))


def works_of(events: list[dict[str, Any]], *, of: Sequence[str]) -> tuple[list[Work], int]:
    """Return the works of some categories in a trace, in the form that torch exports for Chrome, and the kernel launches.

    A kernel names the operation that started it by its external id, or by the correlation of the call that did. Raises
    RuntimeError where the trace has none of them.
    """
    events = [e for e in events if e.get("ph") == "X" and "dur" in e]
    operations = {e["args"]["External id"]: e for e in events if e["cat"] == "cpu_op" and "External id" in e.get("args", {})}
    calls = [e for e in events if e["cat"] in ("cuda_runtime", "cuda_driver")]
    by_call = {e["args"]["correlation"]: e["args"].get("External id") for e in calls if "correlation" in e.get("args", {})}
    works = []
    for event in (e for e in events if e["cat"] in of):
        args = event.get("args", {})
        operation = operations.get(args.get("External id", by_call.get(args.get("correlation"))), {})
        kind = kind_of(event["name"], operation.get("name", ""), operation.get("args", {}).get("Input Dims", []))
        works.append(Work(event["name"], kind, event["ts"], event["dur"] / 1e6, int(args.get("bytes", 0))))
    if not works:
        raise RuntimeError("the profiler saw no kernel: it may not be allowed to trace the GPU here")
    return works, sum("Launch" in e["name"] for e in calls)


def kind_of(name: str, operation: str, dims: list[Any]) -> str:
    """Return the kind of a work from the names of kernel and operation, and from the shapes that the operation was given.

    transformers copies the keys of all rows behind each other with those of the tail, [row, head, pos, head_dim], and then, where
    query heads share them, once for each of these: [row, key/value head, query head, pos, head_dim].
    """
    both = f"{operation} {name}".lower()
    if any(direction in name for direction in HOST):
        return "host"
    if any(word in both for word in ("attention", "flash", "fmha", "softmax")):
        return "attention"
    if any(
        word in both for word in ("gemm", "gemv", "cublas", "cutlass", "nvjet", "aten::mm", "aten::addmm", "aten::bmm", "conv")
    ):
        return "products"
    first = dims[0] if dims else []
    if operation == "aten::copy_" and len(first) == 5:
        return "keys expanded"
    if operation == "aten::cat" and [len(d) for d in first if isinstance(d, list)] == [4, 4] and first[0][2] != first[1][2]:
        return "keys joined"
    return "others"


def occupied(works: list[Work]) -> tuple[float, float]:
    """Return the seconds in which anything ran, and those from the first start to the last end."""
    busy, until = 0.0, float("-inf")
    for work in sorted(works, key=lambda w: w.start):
        end = work.start + 1e6 * work.seconds
        busy += max(0.0, end - max(until, work.start))
        until = max(until, end)
    return busy / 1e6, (until - min(w.start for w in works)) / 1e6


def copy_speed(lm: AudioLM, *, megabytes: int) -> float:
    """Return the bytes a second that a copy on the device reads and writes, at most."""
    source = torch.ones(megabytes * 1_000_000, dtype=torch.uint8, device=lm.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest(lambda: target.copy_(source), 8)


def shared_keys(patch: Callable[[], torch.Tensor]) -> dict[str, Any]:
    """Time a pass as it is, and with the kernel itself letting the query heads share keys and values (`enable_gqa`)."""
    patch()
    seconds, as_is = fastest(patch, 3), patch()
    with heads_share_keys(torch.device("cpu")):  # as on a CPU, whatever the device
        patch()
        shared, other = fastest(patch, 3), patch()
    difference = float((as_is.float() - other.float()).abs().max())
    return {"as it is, s": seconds, "shared, s": shared, "largest difference of two logits": difference}
