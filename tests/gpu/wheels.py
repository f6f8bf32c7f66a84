"""Collect the wheels that a bare machine needs beside torch, and measure them with the tree: `make gpu-wheels`."""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.gpu.runner import ROOT

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements-gpu.txt"
LIMIT = 60 * 2**20  # bytes of wheels and tree together
LEFT_OUT = ("data/demo", "data/small_model")  # the run needs neither
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def collect(folder: Path, python: str) -> None:
    """Download the wheels for a version of Python on x86-64 into a folder. Raises CalledProcessError where one is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    command = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python, *platforms]
    where = ["--dest", str(folder), "--requirement", str(REQUIREMENTS)]
    subprocess.run([sys.executable, "-m", "pip", *command, *where], check=True)


def tree_bytes() -> int:
    """Return the bytes of the files that git tracks, less what is left out."""
    command = ["git", "ls-files", "-z", "--", ".", *(f":!{folder}" for folder in LEFT_OUT)]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sum((ROOT / name).stat().st_size for name in listed.split("\0") if name and (ROOT / name).exists())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.wheels", description=__doc__, allow_abbrev=False)
    parser.add_argument("--python", default="3.12", help="the version on the machine with the GPU (3.12)")
    parser.add_argument("--out", type=Path, default=HERE / "wheels", help="folder for the wheels (tests/gpu/wheels)")
    args = parser.parse_args(argv)
    try:
        collect(args.out, args.python)
    except subprocess.CalledProcessError:
        print(f"tests.gpu.wheels: not every wheel of {REQUIREMENTS.name} is there for Python {args.python}", file=sys.stderr)
        return 2
    wheels = [path.stat().st_size for path in args.out.glob("*.whl")]
    tree = tree_bytes()
    print(f"{len(wheels)} wheels for Python {args.python}: {sum(wheels) / 2**20:.1f} MiB")
    print(f"tree without {' and '.join(LEFT_OUT)}: {tree / 2**20:.1f} MiB")
    print(f"together: {(sum(wheels) + tree) / 2**20:.1f} of {LIMIT / 2**20:.0f} MiB")
    return 0 if sum(wheels) + tree <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
