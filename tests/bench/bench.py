"""Time the patching engine against what one would use instead, on the same clips and pairs: `make bench`.

Each tool patches the audio span of a pair at all layers and gives the last position's logits. The engine (`splice`) does the
whole job of --clips and --pairs. The other tools do --tool-pairs pairs and are scaled to the job; between these the engine's
own sweep is timed again. Writes table.md and table.csv.
"""

import argparse
import importlib.metadata
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from common.model.device import DTYPES, choose_device, choose_dtype
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.patching.splice import splice
from common.tracing.prefix_cache import prefix_cache_of
from common.tracing.trace import lens, record
from tests.bench.measure import Report, fastest, machine, peak_memory, product_peak, products, reset_memory, say, timed
from tests.bench.subject import LARGE, REAL, SMALL, Shape, build_model, make_clips
from tests.bench.tools import TOOLS, Tool, hook_loop

PACKAGES = ("torch", "transformers", "nnsight", "pyvene", "transformer-lens")
LONG_CLIPS, LONG_LAYERS = 6, 8  # of the job with clips of 30 s; the layers of the other tools are scaled to all
JOBS = ((50, 100), (400, 3280))  # clips and patches: the job above, and one like the demo's with its control donors
GROWTH_LAYERS = 3  # the hook loop of a growth table runs so many layers and is scaled to all
Pairs = list[tuple[int, int]]  # recipient, donor


@dataclass(frozen=True)
class Timing:
    """Seconds to record a clip and to patch a pair, GB above what was in use before, and logits [pair, layer, vocab]."""

    record: float
    patch: float
    memory: float
    logits: torch.Tensor


def lens_cost(lm: AudioLM, clip: EncodedClip, *, rounds: int) -> tuple[float, float]:
    """Return the median seconds of a bare forward and of `record`, which gives trace and lens, taken in turn."""
    seconds = []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            seconds.append((timed(lambda: lm.model(**clip.inputs))[0], timed(lambda: record(lm, clip))[0]))
    bare, recorded = zip(*seconds[1:])
    return statistics.median(bare), statistics.median(recorded)


def whole_job(lm: AudioLM, clips: list[EncodedClip], pairs: Pairs) -> tuple[float, float]:
    """Record every clip and patch every pair, a donor's pairs in one pass; return the seconds of both."""
    recording, traces = timed(lambda: [record(lm, clip)[0] for clip in clips])
    say(f"recorded {len(clips)} clips")

    def patch() -> None:
        for donor, trace in enumerate(traces):
            if recipients := [traces[r] for r, d in pairs if d == donor]:
                splice(lm, trace, recipients)
            if donor % 10 == 9:
                say(f"patched the pairs of {donor + 1} of {len(traces)} donors")

    return recording, timed(patch)[0]


def compare_tools(
    lm: AudioLM, clips: list[EncodedClip], pairs: Pairs, layers: Sequence[int]
) -> tuple[dict[str, Timing], list[float]]:
    """Time the engine on each of `pairs`, and again before each pair of each tool; return all and the engine's seconds.

    The tools patch at `layers`, and their seconds are scaled to all.
    """
    traces = {i: record(lm, clips[i])[0] for i in {i for pair in pairs for i in pair}}
    sweeps = []

    def sweep(recipient: int, donor: int) -> torch.Tensor:
        seconds, logits = timed(lambda: splice(lm, traces[donor], [traces[recipient]])[0, :-1])
        sweeps.append(seconds)
        return logits[list(layers)].float().cpu()

    sweep(*pairs[0])  # the first call of a tool is not timed
    sweeps.clear()
    held = reset_memory(lm.device)
    logits = torch.stack([sweep(*pair) for pair in pairs])
    timings = {"splice": Timing(0, 0, peak_memory(lm.device) - held, logits)}
    for make in TOOLS:
        tool = make(lm)
        tool.patch(clips[0], [tool.record(clip) for clip in clips[:2]][1], [0])
        recording, patching, rows = [], [], []
        held = reset_memory(lm.device)
        for recipient, donor in pairs:
            sweep(recipient, donor)
            recorded, patched, logits = time_pair(tool, clips[recipient], clips[donor], layers)
            recording.append(recorded)
            patching.append(patched * len(lm.blocks) / len(layers))
            rows.append(logits)
            say(f"{tool.name}: {patching[-1]:.2f} s to patch a pair, {sweeps[-1]:.2f} s by splice just before")
        memory = peak_memory(lm.device) - held
        timings[tool.name] = Timing(statistics.mean(recording), statistics.mean(patching), memory, torch.stack(rows))
    return timings, sweeps


def time_pair(tool: Tool, recipient: EncodedClip, donor: EncodedClip, layers: Sequence[int]) -> tuple[float, float, torch.Tensor]:
    """Return seconds to record one of two clips, seconds to patch at `layers`, and the logits [layer, vocab]."""
    recording, states = timed(lambda: [tool.record(clip) for clip in (recipient, donor)])
    patching, logits = timed(lambda: tool.patch(recipient, states[1], layers))
    return recording / 2, patching, logits.float().cpu()


def growth(lm: AudioLM, *, seconds: float) -> list[float]:
    """Return seconds to record a clip, of a sweep, of the hook loop's sweep (scaled from a few layers), and their ratio."""
    a, b = make_clips(lm, 2, seconds=seconds)
    donor, recipient = record(lm, a)[0], record(lm, b)[0]
    recording = fastest(lambda: record(lm, a), 3)
    sweep = fastest(lambda: splice(lm, donor, [recipient]), 4)
    tool = hook_loop(lm)
    states = tool.record(a)
    loop = fastest(lambda: tool.patch(b, states, range(GROWTH_LAYERS)), 2) * (len(lm.blocks) + 1) / GROWTH_LAYERS
    return [recording, sweep, loop, loop / sweep]


def prompts_cost(lm: AudioLM, clip: EncodedClip) -> list[float]:
    """Return seconds of a clip's lens, of its front and of the lens behind that, and how much faster five prompts are by it."""
    prefix_cache = prefix_cache_of(lm, clip)
    ahead, whole = fastest(lambda: prefix_cache_of(lm, clip), 3), fastest(lambda: lens(lm, clip, range(5)), 3)
    continue_from = fastest(lambda: lens(lm, clip, range(5), prefix_cache=prefix_cache), 3)
    return [whole, ahead, continue_from, 5 * whole / (ahead + 5 * continue_from)]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--tool-pairs", type=int, default=2, help="pairs that each other tool is timed on (2)")
    parser.add_argument("--threads", type=int, help="of torch (its own choice)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=["auto", *DTYPES])
    parser.add_argument("--small", action="store_true", help="a small model: shows that everything runs, measures nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "outputs")
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    shape = SMALL if args.small else LARGE if device.type == "cuda" else REAL
    lm = build_model(shape, device=device, dtype=choose_dtype(args.dtype, device))
    clips = make_clips(lm, args.clips, seconds=3)
    pairs = [((i + 1 + i // args.clips) % args.clips, i % args.clips) for i in range(args.pairs)]
    report = Report(args.out)
    report.add("Setting", ["", "value"], setting(args, lm, shape, clips))
    measure_job(report, lm, shape, clips, pairs, args.tool_pairs)
    measure_long(report, lm)
    measure_prompts(report, lm)
    measure_growth(report, lm, shape, clips)
    say(f"written to {args.out}")


def setting(args: argparse.Namespace, lm: AudioLM, shape: Shape, clips: list[EncodedClip]) -> list[list[str]]:
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES)
    length, tail = clips[0].ids.shape[1], len(clips[0].tail_ids)
    return [
        ["machine", machine()],
        ["GPU", torch.cuda.get_device_name(lm.device) if lm.device.type == "cuda" else "not measured"],
        ["versions", f"Python {platform.python_version()}, {versions}"],
        ["dtype", str(lm.dtype)],
        ["model", str(shape)],
        ["job", f"{args.clips} clips of 3 s, {length} tokens each, {tail} of them tail; {args.pairs} pairs"],
        ["timed", f"splice on the whole job; the other tools on {args.tool_pairs} pairs, all layers, scaled to the job"],
    ]


def measure_job(report: Report, lm: AudioLM, shape: Shape, clips: list[EncodedClip], pairs: Pairs, tool_pairs: int) -> None:
    say("matrix-product peak, lens")
    peak = product_peak(lm, width=shape.width, mlp=shape.mlp)
    bare, recorded = lens_cost(lm, clips[0], rounds=9)
    rows = [["bare forward, s", bare], ["record, with the lens, s", recorded], ["ratio", recorded / bare]]
    report.add("Lens", ["", "value"], rows)
    say("splice: the whole job")
    recording, patching = whole_job(lm, clips, pairs)
    say("the other tools")
    timings, sweeps = compare_tools(lm, clips, pairs[:tool_pairs], range(len(lm.blocks)))
    peak = max(peak, product_peak(lm, width=shape.width, mlp=shape.mlp))
    job, sweep = recording + patching, statistics.median(sweeps)

    # Row L of a sweep is a run without a patch: a tool has it from the recording in the job, and runs it in a lone sweep.
    rows = []
    for name, t in timings.items():
        if name == "splice":
            clip, pair, whole, lone = recording / len(clips), patching / len(pairs), job, sweep
        else:
            clip, pair, whole, lone = t.record, t.patch, len(clips) * t.record + len(pairs) * t.patch, t.patch + bare
        rows.append([name, clip, pair, whole, whole / job, lone, lone / sweep, t.memory])
    columns = ["tool", "s a clip", "s a pair", "s the job", "ratio", "s a sweep", "sweep ratio", "peak GB beside the model"]
    report.add("The job, recording included, and one sweep (one pair, all L + 1 layers)", columns, rows)
    differences = [[a, *(float((t.logits - u.logits).abs().max()) for u in timings.values())] for a, t in timings.items()]
    largest = float(timings["splice"].logits.abs().max())
    report.add(f"Largest difference of the logits (the largest logit is {largest:.3g})", ["", *timings], differences)

    traces = [record(lm, clip)[0] for clip in clips[:3]]
    alone, shared = (products(lambda n=n: splice(lm, traces[0], traces[1 : n + 1])) for n in (1, 2))  # type: ignore[misc]
    rows = [
        ["measured peak, GFLOP/s", peak / 1e9],
        ["linear layers of a sweep, GFLOP", alone / 1e9],
        ["share of the peak in a sweep", alone / sweep / peak],
        ["share of the peak over the pairs of the job", shared / 2 * len(pairs) / patching / peak],
    ]
    report.add("Matrix products of splice", ["", "value"], rows)
    nnsight = [t for name, t in timings.items() if name.startswith("nnsight")]
    rows = [
        ["job: times faster than nnsight", 15.0, min(len(clips) * t.record + len(pairs) * t.patch for t in nnsight) / job],
        ["sweep: times faster than nnsight", 20.0, min(t.patch + bare for t in nnsight) / sweep],
        ["share of the peak in a sweep", 0.65, alone / sweep / peak],
        ["lens against a bare forward, at most", 1.1, recorded / bare],
        ["difference of the logits, at most", 1e-4, max(max(row[1:]) for row in differences)],
    ]
    report.add("Targets (2 cores, float32; the faster of the two nnsight loops)", ["", "target", "measured"], rows)


def measure_long(report: Report, lm: AudioLM) -> None:
    """Time the tools on clips of 30 s, where real runs live, each on one pair at some layers."""
    say("clips of 30 s")
    clips = make_clips(lm, LONG_CLIPS, seconds=30)
    pairs = [((donor + n) % LONG_CLIPS, donor) for donor in range(LONG_CLIPS) for n in (1, 2)]
    recording, patching = whole_job(lm, clips, pairs)
    layers = sorted({round(i * (len(lm.blocks) - 1) / (LONG_LAYERS - 1)) for i in range(LONG_LAYERS)})
    timings, _ = compare_tools(lm, clips, pairs[:1], layers)
    timings["splice"] = replace(timings["splice"], record=recording / len(clips), patch=patching / len(pairs))
    rows = []
    for name, t in timings.items():
        ratios = []
        for clips_of, pairs_of in JOBS:
            seconds, own = (clips_of * x.record + pairs_of * x.patch for x in (t, timings["splice"]))
            ratios.append(seconds / own)
        rows.append([name, t.record, t.patch, *ratios, t.memory])
    columns = [
        "tool",
        "s a clip",
        "s a pair",
        *(f"ratio, {c} clips and {p} patches" for c, p in JOBS),
        "peak GB beside the model",
    ]
    report.add(f"Clips of 30 s; the other tools on {len(layers)} layers of one pair, scaled", columns, rows)
    largest = max(float((t.logits - timings["splice"].logits).abs().max()) for t in timings.values())
    report.add("Clips of 30 s: largest difference of the logits from those of splice", ["", "value"], [["all tools", largest]])


def measure_prompts(report: Report, lm: AudioLM) -> None:
    say("five prompts")
    rows = [[seconds, *prompts_cost(lm, *make_clips(lm, 1, seconds=seconds))] for seconds in (3, 30)]
    columns = ["clip, s", "lens, s", "front, s", "lens behind it, s", "five prompts: times faster"]
    report.add("A clip's lens under the five prompts of `--prompts all`", columns, rows)


def measure_growth(report: Report, lm: AudioLM, shape: Shape, clips: list[EncodedClip]) -> None:
    say("growth with the pairs of a donor")
    traces = [record(lm, clip)[0] for clip in clips[:11]]
    rows: list[list[float]] = []
    for n in (1, 2, 5, 10):
        seconds = statistics.median(timed(lambda n=n: splice(lm, traces[0], traces[1 : n + 1]))[0] for _ in range(3))  # type: ignore[misc]
        rows.append([n, seconds, seconds / n])
    report.add("Growth with the pairs of a donor", ["pairs in a pass", "s a pass", "s a pair"], rows)
    columns = ["record, s", "sweep, s", "hook loop (scaled), s", "ratio"]
    say("growth with the clip length")
    rows = [[seconds, *growth(lm, seconds=seconds)] for seconds in (3, 10, 30)]
    report.add("Growth with the clip length", ["clip, s", *columns], rows)
    rows = []
    for blocks in (12, 24, 36):
        say(f"growth with the blocks: {blocks}")
        other = build_model(replace(shape, blocks=blocks), device=lm.device, dtype=lm.dtype)
        rows.append([blocks, *growth(other, seconds=3)])
    report.add("Growth with the blocks", ["blocks", *columns], rows)


if __name__ == "__main__":
    main()
