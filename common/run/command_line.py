"""The command line that both experiments share: arguments, and mistakes as one line with an exit code."""

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from common.clips.audio import MAX_SECONDS
from common.clips.manifest import LABELS
from common.clips.pairs import KINDS, PairRules
from common.digests import digest
from common.environment import patient_streams
from common.errors import CheckFailed, InputError, first_line
from common.model import ModelChoice
from common.model.prompts import MAIN_PROMPTS, PROMPTS, Question, ask
from common.paths import given_path, path_or_name
from common.processes import shutdown
from common.run.default_model import is_test_weight

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 2**32 - 1  # the largest that every library takes
DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("4bit", "8bit")
DEFAULTS = {"model": "data/small_model/assembled", "data": "data/demo/manifest.csv", "prompt": "speaker"}


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that both experiments share."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument_group("model").add_argument
    add(
        "--model",
        type=path_or_name,
        help="folder or hub id (default: the small model, put together at first use)",
    )
    add("--revision", help="branch, tag or commit of a hub id")
    add("--trust-remote-code", action="store_true", help="run model code that comes with the checkpoint")
    add("--device", default="auto", help="cpu, cuda, cuda:1 or mps; auto (default) takes the first of cuda, mps, cpu")
    spread = "spread one model over several GPUs: auto, balanced, sequential, or a JSON file of modules and devices; one process"
    add("--device-map", metavar="HOW", help=spread)
    add("--dtype", default="auto", choices=DTYPES, help="auto (default): bfloat16 on a GPU that has it, float32 elsewhere")
    fewer = "quantise the weights as they are read (bitsandbytes, a CUDA GPU); --plan counts them unquantised"
    add("--quantization", choices=QUANTIZATIONS, help=fewer)
    add("--attention", metavar="NAME", help="attention implementation, such as eager or sdpa (default: the model's own)")
    add = parser.add_argument_group("clips").add_argument
    add("--data", type=given_path, default=ROOT / DEFAULTS["data"], help="manifest, a CSV (default: the demo)")
    add("--limit", type=whole_number(1), metavar="N", help="use N clips, 1 or more, drawn with --seed (all)")
    add("--skip-bad", action="store_true", help="leave out, and count, clips that cannot be read or heard whole (default: stop)")
    add("--trim", action="store_true", help="take away the silence at both ends of every clip")
    level = "bring every clip to one level by gain alone, -70 to 0 dB of full scale (alone: -26), so that loudness is no cue"
    add("--match-level", nargs="?", type=number(-70, 0), const=-26.0, metavar="DB", help=level)
    add = parser.add_argument_group("question").add_argument
    prompts = ", ".join(p for p in MAIN_PROMPTS if not p.endswith("-zh"))
    asked = f"{prompts}, with -zh in Chinese, or a text file with {{audio}} and {{labels}} (default: speaker)"
    add("--prompt", type=prompt_name, default=DEFAULTS["prompt"], metavar="PROMPT", help=asked)
    add("--prompts", choices=("one", "all"), default="one", help="all: also paraphrases and other orders of the options")
    add("--labels", nargs="+", metavar="LABEL", help=f"the labels, 2 to 10 (default: {' '.join(LABELS)}); others are left out")
    words = "a word for each label, read as given, ' happy' with its space (default: the labels, in the form the model prefers)"
    add("--words", nargs="+", metavar="WORD", help=words)
    add("--system", metavar="TEXT", help="system prompt, for chat templates that take one")
    add("--answer-prefix", default="", metavar="TEXT", help='words that the answer begins with, such as "The speaker sounds"')
    thought = "ask for no thought: by the chat template where it knows that, else by an empty thought before the answer"
    add("--no-thinking", dest="thinking", action="store_false", help=thought)
    add = parser.add_argument_group("run").add_argument
    listed = "rows at these layers alone, such as 0:36:4 or 1 5 12, and at 0 and L, the run's own controls (default: all)"
    add("--layers", nargs="+", type=layer_range, action=_Layers, metavar="L", help=listed)
    add("--seed", type=whole_number(0, SEEDS), default=0, metavar="N", help=f"draws clips and pairs; 0 to {SEEDS} (0)")
    add("--out", type=given_path, help="output folder (default: outputs/ beside this script)")
    add("--plan", action="store_true", help="before you book a GPU: show the prompt, what is left out, memory, hours; no weights")
    add("--overwrite", action="store_true", help="start anew where --out holds another run")
    add("--redraw", action="store_true", help="tables and figures of the finished run in --out anew, from its rows; no model")
    add("--svg", action="store_true", help="figures as SVG beside the PNG")
    add("--pdf", action="store_true", help="figures as PDF beside the PNG, with the fonts in it")
    return parser


def chosen_model(args: argparse.Namespace) -> ModelChoice:
    names = ("device", "dtype", "attention", "revision", "trust_remote_code", "device_map", "quantization", "trim")
    named = {name: getattr(args, name) for name in names}
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
        type=number(0, MAX_SECONDS),
        const=0.0,
        metavar="SECONDS",
        help="the most that lengths may differ, 0 to 3600 (alone: 0)",
    )
    add("--pairs-per-recipient", type=whole_number(1), metavar="N", help="at most N pairs, 1 or more, with the same recipient")
    add("--max-pairs", type=whole_number(1), default=300, metavar="N", help="pairs of each kind, 1 or more (300)")
    add(
        "--pairs-file",
        type=given_path,
        metavar="CSV",
        help="take the pairs it lists: kind,recipient_id,donor_id, as in patches.csv",
    )


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
    said = {"answer_prefix": args.answer_prefix.rstrip(), "thinking": args.thinking}
    return replace(question, input=getattr(args, "input", question.input), **said)


def figure_formats(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the formats that figures were asked for in."""
    return ("png", *(kind for kind in ("svg", "pdf") if getattr(args, kind)))


def prompt_name(text: str) -> str:
    """Return the name of a built-in prompt, or the path of a file; an argument type."""
    return text if text in PROMPTS else path_or_name(text)


def whole_number(least: int, most: int = 10**9) -> Callable[[str], int]:
    """Return an argument type: whole numbers from `least` to `most`."""
    return _ranged(int, least, most, f"whole number from {least} " + (f"to {most}" if most != 10**9 else "on"))


def number(least: float, most: float) -> Callable[[str], float]:
    """Return an argument type: numbers from `least` to `most`, of which nan and infinity are none."""
    return _ranged(float, least, most, f"number from {least:g} to {most:g}")


def _ranged(kind: type, least: float, most: float, name: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if not least <= (value := kind(text)) <= most:
            raise ValueError
        return value

    parse.__name__ = name  # argparse names the type in its message
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


def command(experiment: str, argv: list[str] | None) -> str:
    """Return the command that was given, quoted for a shell."""
    return shlex.join(["python", f"{experiment}/run.py", *(sys.argv[1:] if argv is None else argv)])


def told(args: argparse.Namespace, prompt: str) -> dict[str, Any]:
    """Return what run.json says of how a run was asked for, beside its identity."""
    return {"prompt_name": prompt, "command": args.command, "test_weight": is_test_weight(args.model)}


def main_of(main: Callable[[list[str] | None], None]) -> None:
    """Call `main` as a program: a user's mistake or a failed self-check is one line on stderr and exit code 2 or 3."""
    patient_streams()
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
