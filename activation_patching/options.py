"""The arguments that say what is done to the states."""

import argparse

from activation_patching.intervention import INTERVENTIONS, POSITIONS, InterventionSpec
from common.errors import InputError
from common.patching import ALIGNMENTS
from common.paths import given_path
from common.run import command_line


def add_patching(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("patching").add_argument
    edits = (
        "span (default): the donor's audio span is put in; erase, exchange, scale: what the states tell of a label is taken out, "
        "exchanged, made larger; knockout: attention between audio, question and last token is cut; components: heads, "
        "attentions and MLPs are the donor's"
    )
    add("--intervention", choices=INTERVENTIONS, default="span", help=edits)
    around = "with --intervention knockout: cut also in windows of N blocks around l (default: 1 5)"
    add("--window", dest="windows", type=command_line.whole_number(1), nargs="*", default=[1, 5], metavar="N", help=around)
    factors = (
        "with --intervention scale: what the states tell of a label is multiplied by 1 + A; -1 erases it (default: -1 0 1 2 4 8)"
    )
    add(
        "--factor",
        dest="factors",
        type=command_line.number(-10, 100),
        nargs="+",
        default=[-1, 0, 1, 2, 4, 8],
        metavar="A",
        help=factors,
    )
    kept = "with --intervention scale: the subspaces that another run has written, for these clips or this prompt"
    add("--subspaces", type=given_path, metavar="FILE", help=kept)
    add(
        "--at", choices=POSITIONS, default="span", help="positions that are erased, exchanged or scaled (default: the audio span)"
    )
    add("--rank", type=command_line.whole_number(1, 9), metavar="K", help="of what is exchanged, 1 to labels - 1 (default: that)")
    aligns = "for spans of unequal length: splice (default) needs none; stretch (default of --intervention exchange) or crop"
    add("--align", choices=ALIGNMENTS, help=aligns)
    add("--controls", action="store_true", help="also patch donors that only disturb: the recipient's own labels, silence")
    memory = "main memory for recorded clips, 0 to 100000 (default: a quarter of what is free)"
    add("--cache-gb", type=command_line.number(0, 100_000), metavar="GB", help=memory)


def check_alone(args: argparse.Namespace) -> None:
    """Raise InputError where an option does not go with knockout, components or scale: they choose clips in ways of their own."""
    if args.subspaces is not None and args.intervention != "scale":
        raise InputError(f"--subspaces {args.subspaces}: allowed with --intervention scale alone")
    if args.subspaces is not None and not args.subspaces.is_file():
        raise InputError(f"--subspaces {args.subspaces}: no such file")
    if args.intervention == "scale" and not any(args.factors):
        raise InputError("--factor 0: changes nothing; name another factor, such as -1 or 4")
    if args.intervention not in ("knockout", "components", "scale"):
        return
    placed = args.intervention != "scale"
    given = {
        "--at": placed and args.at != "span",
        "--rank": placed and args.rank is not None,
        "--align": args.align is not None,
        "--controls": args.controls,
        "--pairs-file": args.intervention == "scale" and args.pairs_file is not None,
    }
    if named := [name for name, there in given.items() if there]:
        raise InputError(f"{named[0]} does not go with --intervention {args.intervention}; leave it out")


def chosen_intervention(args: argparse.Namespace, labels: int) -> InterventionSpec:
    """Return what the command line asks for. Raises InputError where its options do not go together."""
    aligned = args.intervention == "exchange" and args.at == "span"
    if args.intervention == "erase" and args.pairs_file is not None:
        raise InputError(f"--pairs-file {args.pairs_file}: not with --intervention erase, which takes single clips")
    if args.intervention == "span" and (args.at != "span" or args.rank is not None):
        raise InputError("--at and --rank say how --intervention erase and --intervention exchange work; a span is patched whole")
    if args.rank is not None and (args.intervention not in ("exchange", "scale") or args.rank >= labels):
        raise InputError(f"--rank {args.rank}: allowed: 1 to {labels - 1} (labels - 1), with --intervention exchange or scale")
    if args.align is not None and args.intervention != "span" and (not aligned or args.align == "splice"):
        raise InputError(
            f"--align {args.align}: allowed: stretch, crop with --intervention exchange --at span, whose states stand in pairs"
        )
    rank = None if args.intervention == "span" else args.rank or labels - 1
    return InterventionSpec(args.intervention, args.at, rank, args.align or ("stretch" if aligned else "splice"))
