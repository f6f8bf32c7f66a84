"""The command line that both experiments share: arguments, and mistakes as one line with an exit code."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from common.clips.pairs import KINDS, PairRules
from common.clips.samples import LABELS
from common.errors import CheckFailed, InputError, first_line
from common.model import ModelChoice
from common.model.prompts import MAIN_PROMPTS, Question, ask
from common.running.identity import digest
from common.running.parallel import shutdown

ROOT = Path(__file__).resolve().parents[2]
DTYPES = ("auto", "float32", "bfloat16", "float16")
DEFAULTS = {"model": "data/reference_model", "data": "data/demo/manifest.csv", "prompt": "speaker"}


def argument_parser(description: str, out: Path | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments that both experiments share; `out` is the default output folder.

    None leaves it to the experiment, where it depends on other arguments.
    """
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument_group("model").add_argument
    add("--model", default=str(ROOT / DEFAULTS["model"]), help="folder or hub id (default: the shipped model)")
    add("--revision", help="branch, tag or commit of a hub id")
    add("--trust-remote-code", action="store_true", help="run model code that comes with the checkpoint")
    add("--device", default="auto", help="cpu, cuda, cuda:1 or mps; auto (default) takes the first of cuda, mps, cpu")
    add("--dtype", default="auto", choices=DTYPES, help="auto (default): bfloat16 on a GPU that has it, float32 elsewhere")
    add("--attention", metavar="NAME", help="attention implementation, such as eager or sdpa (default: the model's own)")
    add = parser.add_argument_group("clips").add_argument
    add("--data", type=Path, default=ROOT / DEFAULTS["data"], help="manifest, a CSV (default: the demo)")
    add("--limit", type=whole_number(1), metavar="N", help="use N clips, drawn with --seed (default: all)")
    add("--skip-bad", action="store_true", help="leave out, and count, clips that cannot be read or heard whole (default: stop)")
    add("--trim", action="store_true", help="take away the silence at both ends of every clip")
    level = "bring every clip to one level by gain alone, in dB of full scale (alone: -26), so that loudness is no cue"
    add("--match-level", nargs="?", type=float, const=-26.0, metavar="DB", help=level)
    add = parser.add_argument_group("question").add_argument
    prompts = ", ".join(p for p in MAIN_PROMPTS if not p.endswith("-zh"))
    add(
        "--prompt",
        default=DEFAULTS["prompt"],
        help=f"{prompts}, with -zh in Chinese, or a text file with {{audio}} and {{labels}}",
    )
    add("--prompts", choices=("one", "all"), default="one", help="all: also paraphrases and other orders of the options")
    add("--labels", nargs="+", metavar="LABEL", help=f"the labels, 2 to 10 (default: {' '.join(LABELS)}); others are left out")
    add("--words", nargs="+", metavar="WORD", help="a word for each label, as the answer is to be read (default: the labels)")
    add("--system", metavar="TEXT", help="system prompt, for chat templates that take one")
    add = parser.add_argument_group("run").add_argument
    listed = "rows at these layers alone, such as 0:36:4 or 1 5 12, and at 0 and L, the run's own controls (default: all)"
    add("--layers", nargs="+", type=layer_range, action=_Layers, metavar="L", help=listed)
    add("--seed", type=whole_number(0), default=0, metavar="N", help="draws clips, pairs and what intervals need (default: 0)")
    add("--out", type=Path, default=out, help="output folder (default: outputs/ beside this script)")
    add("--overwrite", action="store_true", help="start anew where --out holds another run")
    add("--redraw", action="store_true", help="tables and figures of the finished run in --out anew, from its rows; no model")
    add("--svg", action="store_true", help="figures as SVG beside the PNG")
    add("--pdf", action="store_true", help="figures as PDF beside the PNG, with the fonts in it")
    return parser


def chosen_model(args: argparse.Namespace) -> ModelChoice:
    named = {name: getattr(args, name) for name in ("device", "dtype", "attention", "revision", "trust_remote_code", "trim")}
    return ModelChoice(args.model, **named, level=args.match_level)


def add_pair_rules(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which clips make a pair, and how many pairs are taken."""
    add = parser.add_argument_group("pairs").add_argument
    where, given = argparse.BooleanOptionalAction, "(default: where the data has such pairs)"
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what differs in a pair (default: both, a run of each)")
    add("--pool", choices=("conflict", "all"), default="conflict", help="clips that pairs are built from (default: conflict)")
    add("--same-speaker", action=where, help=f"both clips of a pair are of one speaker {given}")
    add("--same-text", action=where, help=f"both clips of a prosody pair say the same text {given}")
    add(
        "--equal-length",
        nargs="?",
        type=seconds,
        const=0.0,
        metavar="SECONDS",
        help="the most that lengths may differ (alone: 0)",
    )
    add("--pairs-per-recipient", type=whole_number(1), metavar="N", help="at most N pairs with the same recipient, of each kind")
    add("--max-pairs", type=whole_number(1), default=1200, metavar="N", help="pairs of each kind, drawn with --seed (1200)")
    add("--pairs-file", type=Path, metavar="CSV", help="take the pairs it lists: kind,recipient_id,donor_id, as in patches.csv")


def pair_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_pair_rules` has added, as choose_pairs takes it."""
    rules = PairRules(**{field.name: getattr(args, field.name) for field in fields(PairRules)})
    return {"kinds": args.kinds, "pool": args.pool, "rules": rules, "pairs_file": args.pairs_file, "trim": args.trim}


def recorded(options: dict[str, Any]) -> dict[str, Any]:
    """Return the same as run.json keeps it; a list of pairs is known by what it says. Raises InputError for one that is none."""
    listed = options["pairs_file"]
    try:
        text = listed.read_text(encoding="utf-8-sig") if listed else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--pairs-file {listed}: cannot be read ({first_line(error)})") from None
    return options | {"rules": asdict(options["rules"]), "pairs_file": text and digest(text)}


def asked_question(args: argparse.Namespace, prompt: str) -> Question:
    """Return what the command line asks of every clip, heard unless it has --input. Raises InputError as `ask` does."""
    question = ask(prompt, labels=args.labels or LABELS, words=args.words, system=args.system)
    return replace(question, input=getattr(args, "input", question.input))


def figure_formats(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the formats that figures were asked for in."""
    return ("png", *(kind for kind in ("svg", "pdf") if getattr(args, kind)))


def whole_number(least: int) -> Callable[[str], int]:
    """Return an argument type: whole numbers from `least` on."""

    def parse(text: str) -> int:
        if int(text) < least:
            raise ValueError
        return int(text)

    parse.__name__ = f"whole number from {least} on"  # argparse names the type in its message
    return parse


def layer_range(text: str) -> range:
    """Return a layer, or layers first:last or first:last:step with the last if a step meets it; an argument type."""
    first, *more = map(int, text.split(":"))
    last, step = more + [first, 1][len(more) :]
    if not 0 <= first <= last < 10_000 or step < 1:  # a slip must not fill the memory
        raise ValueError
    return range(first, last + 1, step)


layer_range.__name__ = "layer, or first:last:step"  # argparse names the type in its message


class _Layers(argparse.Action):
    """Keep the layers of all ranges, and 0, in their order."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, sorted({0}.union(*values)))


def seconds(text: str) -> float:
    """Return a number from 0 on; an argument type."""
    if not 0 <= float(text) < float("inf"):
        raise ValueError
    return float(text)


def main_of(main: Callable[[list[str] | None], None]) -> None:
    """Call `main` as a program: a user's mistake or a failed self-check is one line on stderr and exit code 2 or 3."""
    try:
        main(None)
        shutdown()
    except InputError as error:
        sys.exit(_say(f"error: {error}", 2))
    except CheckFailed as error:
        sys.exit(_say(f"error: {error}; no figure of this run could be trusted", 3))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted; the same command without --overwrite goes on from here", 130))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which may not have been imported
            raise
        sys.exit(_say(f"error: out of memory ({first_line(error)}); another --device or --dtype may be large enough", 2))


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
