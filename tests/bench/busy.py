"""Pairs a second beside other busy processes, under each way of letting threads wait: `make busy`, about 3 minutes a model.

A child with one setting loads the model once and measures five windows beside each number of neighbours. "As shipped" takes what
common.environment would set with these neighbours there at the start. Prints a table; needs a machine that is quiet otherwise.
"""

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, dict[str, str]] = {
    "as torch has it": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "1 thread, GOMP_SPINCOUNT=10000": {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "10000"},
}
SHIPPED = "as shipped, neighbours there at the start"
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
WINDOWS, PATIENCE = 5, 20.0  # a cell that gives no window in that many seconds has none
ASKED = """
import json, os
from common.environment import prepare
before = dict(os.environ)
prepare("x")
print(json.dumps({k: v for k, v in os.environ.items() if before.get(k) != v}))
"""


def clean(more: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in VARIABLES} | more


class Neighbours:
    """So many busy processes, while this is held."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> None:
        self.started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(self.count)]
        time.sleep(1 if self.count else 0)

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            process.kill()
            process.wait()


class Child:
    """A process that has loaded a model under a setting, and measures when it is told to."""

    def __init__(self, model: str, setting: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.bench.busy", "--child", model]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=clean(setting), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._answer(300)

    def rates(self, seconds: float) -> list[float]:
        """Return pairs a second in each window of so many seconds; none where it does not answer in time."""
        assert self.process.stdin
        self.process.stdin.write(f"{seconds}\n".encode())
        self.process.stdin.flush()
        return json.loads(self._answer(PATIENCE + WINDOWS * seconds) or "[]")

    def _answer(self, seconds: float) -> bytes:
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline() if ready and self.process.stdout else b""

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def measure_when_told(model: str) -> None:
    """Record and patch pairs of demo clips for a while, whenever a line comes in; print the rates."""
    import torch

    from common.clips.manifest import read_manifest
    from common.model.encoding import encode_clip
    from common.model.load import load_model
    from common.model.prompts import ask
    from common.patching.splice import splice
    from common.tracing.trace import record

    lm = load_model(model, device=torch.device("cpu"), dtype=torch.float32)
    samples = read_manifest(ROOT / "data" / "demo" / "manifest.csv")[::50]
    clips = [encode_clip(lm, sample.audio, ask("speaker").prompt) for sample in samples]
    recipient = record(lm, clips[0])[0]
    with torch.inference_mode():
        splice(lm, record(lm, clips[1])[0], [recipient])
        print("ready", flush=True)
        for seconds in map(float, sys.stdin):
            rates = []
            for _ in range(WINDOWS):
                began, pairs = time.perf_counter(), 0
                while time.perf_counter() - began < seconds:
                    splice(lm, record(lm, clips[1 + pairs % (len(clips) - 1)])[0], [recipient])
                    pairs += 1
                rates.append(pairs / (time.perf_counter() - began))
            print(json.dumps(rates), flush=True)


def cell(child: Child, count: int, seconds: float) -> str:
    with Neighbours(count):
        rates = child.rates(seconds)
    return f"{statistics.median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f})" if rates else f"none in {PATIENCE:.0f} s"


def row(model: str, setting: dict[str, str], counts: list[int], seconds: float) -> list[str]:
    """Return the cells of a setting; a child that has given none in time is replaced."""
    cells: list[str] = []
    child = Child(model, setting)
    for count in counts:
        if cells and cells[-1].startswith("none"):
            child.end()
            child = Child(model, setting)
        cells.append(cell(child, count, seconds))
    child.end()
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "data" / "reference_model"))
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 2, 5])
    parser.add_argument("--seconds", type=float, default=1.2, help="of a window; a slow model needs more (default 1.2)")
    parser.add_argument("--child", metavar="MODEL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure_when_told(args.child)
        return
    header = ["quiet" if n == 0 else f"beside {n}" for n in args.neighbours]
    print(f"| pairs a second, {os.cpu_count()} cores: median of {WINDOWS} (least to most) | {' | '.join(header)} |")
    print("|---" * (1 + len(header)) + "|", flush=True)
    for name, setting in SETTINGS.items():
        print(f"| {name} | {' | '.join(row(args.model, setting, args.neighbours, args.seconds))} |", flush=True)
    cells = []
    for count in args.neighbours:
        with Neighbours(count):
            asked = subprocess.run([sys.executable, "-c", ASKED], cwd=ROOT, env=clean({}), stdout=subprocess.PIPE, check=True)
        setting = json.loads(asked.stdout)
        child = Child(args.model, setting)
        cells.append(f"{cell(child, count, args.seconds)}, {setting.get('OMP_NUM_THREADS', 'all')} threads")
        child.end()
    print(f"| {SHIPPED} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
