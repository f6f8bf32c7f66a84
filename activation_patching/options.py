"""The arguments that say what is done to the states."""

import argparse
from pathlib import Path

from activation_patching.how import EDITS, POSITIONS, How
from common.errors import InputError
from common.patching import ALIGNMENTS
from common.running import arguments


def add_patching(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("patching").add_argument
    edits = "the audio span from the donor (default); what the states tell of a label erased, or exchanged with the donor"
    add("--edit", choices=EDITS, default="span", help=edits)
    add("--at", choices=POSITIONS, default="span", help="positions that are erased or exchanged (default: the audio span)")
    add("--rank", type=arguments.whole_number(1, 9), metavar="K", help="of what is exchanged, 1 to labels - 1 (default: that)")
    aligns = "for spans of unequal length: splice (default) needs none; stretch (default of --edit exchange) or crop"
    add("--align", choices=ALIGNMENTS, help=aligns)
    add("--controls", action="store_true", help="also patch donors that only disturb: the recipient's own labels, silence")
    memory = "main memory for recorded clips, 0 to 100000 (default: a quarter of what is free)"
    add("--cache-gb", type=arguments.number(0, 100_000), metavar="GB", help=memory)


def chosen_edit(args: argparse.Namespace, labels: int) -> How:
    """Return what the command line asks for. Raises InputError where its options do not go together."""
    aligned = args.edit == "exchange" and args.at == "span"
    if args.edit == "erase" and args.pairs_file is not None:
        raise InputError(f"--pairs-file {args.pairs_file}: not with --edit erase, which takes single clips")
    if args.edit == "span" and (args.at != "span" or args.rank is not None):
        raise InputError("--at and --rank say how --edit erase and --edit exchange work; a span is patched whole")
    if args.rank is not None and (args.edit != "exchange" or args.rank >= labels):
        raise InputError(f"--rank {args.rank}: allowed: 1 to {labels - 1} (labels - 1), with --edit exchange")
    if args.align is not None and args.edit != "span" and (not aligned or args.align == "splice"):
        raise InputError(
            f"--align {args.align}: allowed: stretch, crop with --edit exchange --at span, whose states stand in pairs"
        )
    rank = None if args.edit == "span" else args.rank or labels - 1
    return How(args.edit, args.at, rank, args.align or ("stretch" if aligned else "splice"))


def folder(out: Path, edit: str, default: Path) -> Path:
    """Return where a run writes: edits have folders of their own below the default one."""
    return out / edit if edit != "span" and out == default else out
