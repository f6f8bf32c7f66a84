"""The command line that both experiments share: arguments, and mistakes as one line with an exit code."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import OutOfMemoryError

from common.clips.samples import LABELS
from common.errors import CheckFailed, InputError, first_line
from common.running.parallel import shutdown

ROOT = Path(__file__).resolve().parents[2]


def argument_parser(description: str, out: Path) -> argparse.ArgumentParser:
    """Return a parser with the arguments that both experiments share; `out` is the default output folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "data" / "reference_model"), help="model folder or hub id")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "demo" / "manifest.csv", help="manifest of the clips (CSV)")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument("--trust-remote-code", action="store_true", help="run model code that comes with the checkpoint")
    parser.add_argument(
        "--prompt",
        default="speaker",
        help="speaker, voice, words, the same with -zh for Chinese, or a text file with {audio} and {labels}",
    )
    parser.add_argument(
        "--prompts", choices=("one", "all"), default="one", help="all: also paraphrases and other orders of the options"
    )
    parser.add_argument(
        "--words", nargs=len(LABELS), metavar="WORD", help=f"words that the answer is read from, for {', '.join(LABELS)}"
    )
    parser.add_argument("--limit", type=whole_number(1), help="use only this many clips, drawn with --seed (default: all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"), help="auto: bfloat16 on cuda"
    )
    parser.add_argument("--attention", help="attention implementation, such as eager or sdpa (default: the model's own)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="draws clips, pairs and bootstrap samples")
    parser.add_argument("--out", type=Path, default=out, help="output folder")
    parser.set_defaults(began=time.time())
    parser.add_argument("--overwrite", action="store_true", help="start anew where --out holds another run")
    return parser


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return those of the options that `open_session` takes: the model and the question."""
    names = ("model", "prompt", "words", "device", "dtype", "revision", "trust_remote_code", "attention")
    return {name: getattr(args, name) for name in names}


def whole_number(least: int) -> Callable[[str], int]:
    """Return an argument type: whole numbers from `least` on."""

    def parse(text: str) -> int:
        if int(text) < least:
            raise ValueError
        return int(text)

    parse.__name__ = f"whole number from {least} on"  # argparse names the type in its message
    return parse


def fraction(text: str) -> float:
    """Return a number from 0 to 1; an argument type."""
    if not 0 <= float(text) <= 1:
        raise ValueError
    return float(text)


fraction.__name__ = "number from 0 to 1"  # argparse names the type in its message


def main_of(run: Callable[[list[str] | None], None]) -> None:
    """Call `run` as a program: a user's mistake or a failed self-check is one line on stderr and exit code 2 or 3."""
    try:
        run(None)
        shutdown()
    except InputError as error:
        sys.exit(_say(f"error: {error}", 2))
    except CheckFailed as error:
        sys.exit(_say(f"error: {error}; no figure of this run could be trusted", 3))
    except OutOfMemoryError as error:
        sys.exit(_say(f"error: out of memory ({first_line(error)}); another --device or --dtype may be large enough", 2))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted; the same command without --overwrite goes on from here", 130))


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
