"""Measure and check on this machine's GPU what the tool rests on, in five minutes: `make gpu`.

Prints one screen and writes gpu.json and a log for each part. A second start with the same folder does what is still missing.
"""

import argparse
import sys
import time
from pathlib import Path

from common.errors import InputError
from tests.gpu.results import DONE, read, records
from tests.gpu.runner import PARTS, ROOT, run_part
from tests.gpu.screen import screen


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


if __name__ == "__main__":
    sys.exit(main())
