"""The command-line options of activation patching alone."""

import argparse
from dataclasses import fields

from activation_patching.choose import PairChoice
from activation_patching.intervention import INTERVENTIONS, POSITIONS, InterventionSpec
from common.clips.audio import MAX_SECONDS
from common.clips.manifest import LABELS
from common.clips.pairs import KINDS, PairRules
from common.errors import InputError
from common.patching import ALIGNMENTS
from common.paths import given_path
from common.run.command_line import Groups, number, whole_number

_WHERE = {"action": argparse.BooleanOptionalAction}
_GIVEN = "(default: where the data has such pairs)"
OPTIONS: Groups = {
    "pairs": {
        "--kinds": {
            "nargs": "+",
            "choices": KINDS,
            "default": list(KINDS),
            "help": "what differs in a pair (default: both, a run of each)",
        },
        "--pool": {
            "choices": ("conflict", "all"),
            "default": "conflict",
            "help": "clips that pairs are built from (default: conflict)",
        },
        "--same-speaker": {**_WHERE, "help": f"both clips of a pair are of one speaker {_GIVEN}"},
        "--same-text": {**_WHERE, "help": f"both clips of a prosody pair say the same text {_GIVEN}"},
        "--equal-length": {
            "nargs": "?",
            "type": number(0, MAX_SECONDS),
            "const": 0.0,
            "metavar": "SECONDS",
            "help": "the most that lengths may differ, 0 to 3600 (alone: 0)",
        },
        "--pairs-per-recipient": {
            "type": whole_number(1),
            "metavar": "N",
            "help": "at most N pairs, 1 or more, with the same recipient",
        },
        "--max-pairs": {
            "type": whole_number(1),
            "default": 300,
            "metavar": "N",
            "help": "pairs of each kind, 1 or more (300)",
        },
        "--pairs-file": {
            "type": given_path,
            "metavar": "CSV",
            "help": "take the pairs it lists: kind,recipient_id,donor_id, as in patches.csv",
        },
    },
    "patching": {
        "--intervention": {
            "choices": INTERVENTIONS,
            "default": "span",
            "help": "span (default): the donor's audio span is put in; exchange, scale: what the states decode of a label is "
            "exchanged, or made larger, smaller, none; knockout: attention between audio, question and last token is cut; "
            "components: heads, attentions and MLPs are the donor's",
        },
        "--window": {
            "dest": "windows",
            "type": whole_number(1),
            "nargs": "*",
            "default": [1, 5],
            "metavar": "N",
            "help": "with --intervention knockout: cut also in windows of N blocks around l (default: 1 5)",
        },
        "--factor": {
            "dest": "factors",
            "type": number(-10, 100),
            "nargs": "+",
            "default": [-1, 0, 1, 2, 4, 8],
            "metavar": "A",
            "help": "with --intervention scale: what the states tell of a label is multiplied by 1 + A; -1 erases it "
            "(default: -1 0 1 2 4 8)",
        },
        "--subspaces": {
            "type": given_path,
            "metavar": "FILE",
            "help": "with --intervention scale: the subspaces that another run has written, for these clips or this prompt",
        },
        "--at": {
            "choices": POSITIONS,
            "default": "span",
            "help": "positions that are exchanged or scaled (default: the audio span)",
        },
        "--rank": {
            "type": whole_number(1, 9),
            "metavar": "K",
            "help": "of what is exchanged, 1 to labels - 1 (default: that)",
        },
        "--align": {
            "choices": ALIGNMENTS,
            "help": "for spans of unequal length: splice (default) needs none; stretch (default of --intervention exchange) or "
            "crop",
        },
        "--controls": {
            "action": "store_true",
            "help": "also patch donors that only disturb: the recipient's own labels, silence",
        },
        "--generate": {
            "type": whole_number(0),
            "default": 0,
            "metavar": "N",
            "help": "N pairs of each kind, or N clips, 0 or more, go on in free text, at every layer (0)",
        },
        "--cache-gb": {
            "type": number(0, 100_000),
            "metavar": "GB",
            "help": "main memory for recorded clips, 0 to 100000 (default: a quarter of what is free)",
        },
    },
}


def chosen_pairs(args: argparse.Namespace) -> PairChoice:
    """Return which pairs the command line asks for."""
    rules = PairRules(**{field.name: getattr(args, field.name) for field in fields(PairRules)})
    return PairChoice(**{f.name: getattr(args, f.name) for f in fields(PairChoice) if f.name != "rules"}, rules=rules)


def chosen_intervention(args: argparse.Namespace) -> InterventionSpec:
    """Return what the command line asks for. Raises InputError where its options do not go together."""
    intervention, labels = args.intervention, len(args.labels or LABELS)
    aligned = intervention == "exchange" and args.at == "span"
    if args.subspaces is not None and intervention != "scale":
        raise InputError(f"--subspaces {args.subspaces}: allowed with --intervention scale alone")
    if args.subspaces is not None and not args.subspaces.is_file():
        raise InputError(f"--subspaces {args.subspaces}: no such file")
    if intervention == "scale" and not any(args.factors):
        raise InputError("--factor 0: changes nothing; name another factor, such as -1 or 4")
    if intervention in ("knockout", "components", "scale"):  # which change the run, or choose clips, in ways of their own
        placed = {} if intervention == "scale" else {"--at": args.at != "span", "--rank": args.rank}
        listed = {"--pairs-file": args.pairs_file} if intervention == "scale" else {}
        given = placed | {"--align": args.align, "--controls": args.controls} | listed
        if named := [name for name, there in given.items() if there]:
            raise InputError(f"{named[0]} does not go with --intervention {intervention}; leave it out")
    if intervention == "span" and (args.at != "span" or args.rank is not None):
        raise InputError("--at and --rank say how --intervention exchange and --intervention scale work; a span is patched whole")
    if args.rank is not None and (intervention not in ("exchange", "scale") or args.rank >= labels):
        raise InputError(f"--rank {args.rank}: allowed: 1 to {labels - 1} (labels - 1), with --intervention exchange or scale")
    if args.align is not None and intervention != "span" and (not aligned or args.align == "splice"):
        raise InputError(
            f"--align {args.align}: allowed: stretch, crop with --intervention exchange --at span, whose states stand in pairs"
        )
    rank = None if intervention == "span" else args.rank or labels - 1
    return InterventionSpec(intervention, args.at, rank, args.align or ("stretch" if aligned else "splice"))
