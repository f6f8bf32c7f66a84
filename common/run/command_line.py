"""The command line that both experiments share: arguments, and mistakes as one line with an exit code."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import files
from common.clips.manifest import LABELS, read_clips
from common.environment import patient_streams
from common.errors import CheckFailed, InputError, first_line
from common.model import ModelChoice
from common.model.prompts import MAIN_PROMPTS, PROMPTS, ask, variants
from common.paths import given_path, path_or_name
from common.processes import is_leader, shutdown
from common.run.settings import Settings

Groups = dict[str, dict[str, dict[str, Any]]]  # of options: title, name, keywords of argparse
ROOT = Path(__file__).resolve().parents[2]
SEEDS = 2**32 - 1  # the largest that every library takes
DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("4bit", "8bit")
_OF_MODEL = ("device", "dtype", "attention", "revision", "trust_remote_code", "device_map", "quantization", "trim")
_AS_GIVEN = ("data", "limit", "seed", "skip_bad", "layers", "overwrite", "redraw")
DEFAULTS = {"model": "data/small_model/assembled", "data": "data/demo/manifest.csv", "prompt": "speaker"}


def argument_parser(description: str, *more: Groups) -> argparse.ArgumentParser:
    """Return a parser with the arguments that both experiments share, and `more` of one."""
    parser = argparse.ArgumentParser(description=description)
    for groups in (OPTIONS, *more):
        for title, options in groups.items():
            group = parser.add_argument_group(title)
            for name, about in options.items():
                group.add_argument(name, **about)
    return parser


def settings(args: argparse.Namespace, command: str) -> Settings:
    """Return what the command line asks of both experiments. Raises InputError as `ask`, `read_clips` and `files.check` do."""
    if args.out and is_leader():
        files.check(args.out)
    several = args.prompts == "all"
    names = variants(args.prompt) if several else [args.prompt]
    said = {"input": getattr(args, "input", "audio"), "answer_prefix": args.answer_prefix.rstrip(), "thinking": args.thinking}
    asked = {"labels": args.labels or LABELS, "words": args.words, "system": args.system}
    texts = said["input"] != "audio" and not args.skip_bad
    clips, others = ([], Counter[str]()) if args.redraw else read_clips(args.data, args.labels, texts=texts)
    model = {field: getattr(args, field) for field in _OF_MODEL}
    return Settings(
        model=ModelChoice(args.model or "", **model, level=args.match_level),
        questions={name: replace(ask(name, **asked), **said) for name in names},
        clips=clips,
        others=others,
        several=several,
        formats=("png", *(kind for kind in ("svg", "pdf") if getattr(args, kind))),
        command=command,
        **{field: getattr(args, field) for field in _AS_GIVEN},
    )


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


OPTIONS: Groups = {
    "model": {
        "--model": {"type": path_or_name, "help": "folder or hub id (default: the small model, put together at first use)"},
        "--revision": {"help": "branch, tag or commit of a hub id"},
        "--trust-remote-code": {"action": "store_true", "help": "run model code that comes with the checkpoint"},
        "--device": {"default": "auto", "help": "cpu, cuda, cuda:1 or mps; auto (default) takes the first of cuda, mps, cpu"},
        "--device-map": {
            "metavar": "HOW",
            "help": "spread one model over several GPUs: auto, balanced, sequential, or a JSON file of modules and devices; "
            "one process",
        },
        "--dtype": {
            "default": "auto",
            "choices": DTYPES,
            "help": "auto (default): bfloat16 on a GPU that has it, float32 elsewhere",
        },
        "--quantization": {
            "choices": QUANTIZATIONS,
            "help": "quantise the weights as they are read (bitsandbytes, a CUDA GPU); --plan counts them unquantised",
        },
        "--attention": {
            "metavar": "NAME",
            "help": "attention implementation, such as eager or sdpa (default: the model's own)",
        },
    },
    "clips": {
        "--data": {"type": given_path, "default": ROOT / DEFAULTS["data"], "help": "manifest, a CSV (default: the demo)"},
        "--limit": {"type": whole_number(1), "metavar": "N", "help": "use N clips, 1 or more, drawn with --seed (all)"},
        "--skip-bad": {
            "action": "store_true",
            "help": "leave out, and count, clips that cannot be read or heard whole (default: stop)",
        },
        "--trim": {"action": "store_true", "help": "take away the silence at both ends of every clip"},
        "--match-level": {
            "nargs": "?",
            "type": number(-70, 0),
            "const": -26.0,
            "metavar": "DB",
            "help": "bring every clip to one level by gain alone, -70 to 0 dB of full scale (alone: -26), so that loudness is "
            "no cue",
        },
    },
    "question": {
        "--prompt": {
            "type": prompt_name,
            "default": DEFAULTS["prompt"],
            "metavar": "PROMPT",
            "help": f"{', '.join(p for p in MAIN_PROMPTS if not p.endswith('-zh'))}, with -zh in Chinese, or a text file with "
            "{audio} and {labels} (default: speaker)",
        },
        "--prompts": {
            "choices": ("one", "all"),
            "default": "one",
            "help": "all: also paraphrases and other orders of the options",
        },
        "--labels": {
            "nargs": "+",
            "metavar": "LABEL",
            "help": f"the labels, 2 to 10 (default: {' '.join(LABELS)}); others are left out",
        },
        "--words": {
            "nargs": "+",
            "metavar": "WORD",
            "help": "a word for each label, read as given, ' happy' with its space (default: the labels, in the form the model "
            "prefers)",
        },
        "--system": {"metavar": "TEXT", "help": "system prompt, for chat templates that take one"},
        "--answer-prefix": {
            "default": "",
            "metavar": "TEXT",
            "help": 'words that the answer begins with, such as "The speaker sounds"',
        },
        "--no-thinking": {
            "dest": "thinking",
            "action": "store_false",
            "help": "ask for no thought: by the chat template where it knows that, else by an empty thought before the answer",
        },
    },
    "run": {
        "--layers": {
            "nargs": "+",
            "type": layer_range,
            "action": _Layers,
            "metavar": "L",
            "help": "rows at these layers alone, such as 0:36:4 or 1 5 12, and at 0 and L, the run's own controls (default: all)",
        },
        "--seed": {
            "type": whole_number(0, SEEDS),
            "default": 0,
            "metavar": "N",
            "help": f"draws clips and pairs; 0 to {SEEDS} (0)",
        },
        "--out": {"type": given_path, "help": "output folder (default: outputs/ beside this script)"},
        "--plan": {
            "action": "store_true",
            "help": "before you book a GPU: show the prompt, what is left out, memory, hours; no weights",
        },
        "--overwrite": {"action": "store_true", "help": "start anew where --out holds another run"},
        "--redraw": {
            "action": "store_true",
            "help": "tables and figures of the finished run in --out anew, from its rows; no model",
        },
        "--svg": {"action": "store_true", "help": "figures as SVG beside the PNG"},
        "--pdf": {"action": "store_true", "help": "figures as PDF beside the PNG, with the fonts in it"},
    },
}
