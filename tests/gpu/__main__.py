"""Measure and check on this machine's GPU what the tool rests on, in five minutes: `make gpu`.

Prints one screen and writes gpu.json and a log for each part. A second start with the same folder does what is still missing.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common.errors import InputError
from tests.gpu.runner import DONE, PARTS, ROOT, Record, read, records, run_part


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--small", action="store_true", help="tiny models: shows that every line runs, measures nothing; needs no GPU"
    )
    parser.add_argument(
        "--only", metavar="PART", choices=[p.name for p in PARTS], help=f"one of {', '.join(p.name for p in PARTS)}"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "tests" / "gpu" / "outputs", help="folder of gpu.json (tests/gpu/outputs)"
    )
    args = parser.parse_args(argv)
    start = time.strftime("%Y-%m-%dT%H:%M:%S")
    parts = [part for part in PARTS if args.only in (None, part.name)]
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        for part in parts:
            print(f"{part.question} {part.name}: at most {part.limit:.0f} s", flush=True)
            run_part(part, args.out, start=start, small=args.small)
    except (InputError, OSError) as error:
        print(f"tests.gpu: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here")
    state = read(args.out)
    print(f"\n{screen(state)}\n\nwritten to {args.out}")
    return 0 if all(r["state"] == DONE for part in parts for r in records(state, part.name).values()) else 1


Figures = dict[str, dict[str, Any]]  # of the cases that are done
SHOWN = {  # figures of `speed`, as columns: name and head
    "features on the CPU, s a clip": "features",
    "recorded, s a clip": "recorded",
    "lens, s a clip": "lens",
    "patched at all layers, s a pair": "pair",
    "pairs at once": "at once",
    "peak memory, GB": "peak GB",
}


def screen(state: dict[str, Any]) -> str:
    """Return the setting, the figures of every part, and what went wrong."""
    setting = state.get("setting", {})
    lines = [", ".join(f"{key} {value}" for key, value in setting.items() if value not in (None, False))]
    if setting.get("small"):
        lines.append("REHEARSAL with tiny models: the figures below say nothing about speed.")
    for part in PARTS:
        found = records(state, part.name)
        done = {case: r["figures"] for case, r in found.items() if r["state"] == DONE}
        measured = {case: figures for case, figures in done.items() if "skipped" not in figures}
        seconds = sum(r.get("seconds", 0) for r in found.values())
        lines += ["", f"{part.question} {part.name}: {len(measured)} of {len(found)} cases measured, {seconds:.0f} s"]
        lines += SECTIONS[part.name](measured)
        lines += wrong(found)
    return "\n".join(lines)


def wrong(found: dict[str, Record]) -> Iterator[str]:
    """Yield a line for what is missing and why; cases with the same reason share it."""
    reasons: dict[str, list[str]] = {}
    for case, record in found.items():
        if record["state"] != DONE:
            reasons.setdefault(": ".join(filter(None, (record["state"], record.get("error")))), []).append(case)
        elif "skipped" in record["figures"]:
            reasons.setdefault(f"skipped: {record['figures']['skipped']}", []).append(case)
    for reason, cases in reasons.items():
        others = f" and {len(cases) - 1} others" if len(cases) > 1 else ""
        yield f"  ! {cases[0]}{others}: {reason[:200]}"


def speed(done: Figures) -> Iterator[str]:
    timed = {case: figures for case, figures in done.items() if "pairs" not in figures}
    if timed:
        yield f"  {'seconds a clip, a pair':26}" + "".join(f"{head:>10}" for head in SHOWN.values())
    for case, figures in timed.items():
        yield f"  {case:26}" + "".join(f"{number(figures[name]):>10}" for name in SHOWN)
    for case, figures in timed.items():
        tried = figures["s a pair, by pairs at once"]
        yield f"  {case:26}s a pair, by pairs at once: " + ", ".join(f"{n}: {number(s)}" for n, s in tried.items())
    for case, figures in done.items():
        if case not in timed:
            job = f"{figures['clips']} clips and {figures['pairs']} pairs"
            yield f"  {case}: {number(figures['all of it, minutes'])} minutes for {job}"
            yield f"    extrapolated from {figures['measured on']}; patching {number(figures['patching, s'])} s"


def right(done: Figures) -> Iterator[str]:
    for case, figures in done.items():
        if "answers" in figures:
            same, answers = figures["answers as on the CPU"], figures["answers"]
            largest = number(figures["largest difference of two logits"])
            yield f"  {case}: {same} of {answers} answers as on the CPU; largest difference of two logits {largest}"
    families = {case: figures for case, figures in done.items() if "answers" not in figures}
    for name in ("splice - rerun", "row 0 - donor", "row L - recipient", "lens row L - model"):
        of_scale = {
            case: figures[name] / figures["largest logit"]
            for case, figures in families.items()
            if isinstance(figures.get(name), float)
        }
        if of_scale:
            worst = max(of_scale, key=of_scale.__getitem__)
            yield f"  {name}: at most {number(of_scale[worst])} of the largest logit ({worst})"
    if families:
        tied, rows, again = (sum(f[name] for f in families.values()) for name in ("tied", "of rows", "pairs patched again"))
        yield f"  families: {tied} of {rows} answers are ties; {again} pairs were patched again"


def profile(done: Figures) -> Iterator[str]:
    for case, figures in done.items():
        if "rows" not in figures:
            yield "  " + f"{case}: " + ", ".join(f"{name} {number(value)}" for name, value in figures.items())
    for case, figures in done.items():
        if "rows" in figures:
            peak, bandwidth = number(figures["matrix peak, TFLOP/s"]), number(figures["bandwidth, GB/s"])
            yield f"  {case} (the card: {peak} TFLOP/s, {bandwidth} GB/s)"
            for name, value, unit, floor in figures["rows"]:
                yield f"    {name:46}{number(value):>10} {unit}" + (f"  floor {number(floor)}" if floor is not None else "")


def loops(done: Figures) -> Iterator[str]:
    for case, figures in done.items():
        slower, own, tool = (number(figures[n]) for n in ("times slower", "splice, s a pair", "the tool, s a pair"))
        difference, largest = (number(figures[n]) for n in ("largest difference of two logits", "largest logit"))
        yield f"  {case:42}{tool} s a pair, {slower} times splice's {own}; logits differ by {difference} of {largest}"


SECTIONS: dict[str, Callable[[Figures], Iterator[str]]] = {"speed": speed, "right": right, "profile": profile, "loops": loops}


def number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
