"""The command-line options of the logit lens alone."""

import argparse

from common.model.prompts import INPUTS
from common.run.command_line import whole_number


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("lens").add_argument
    add(
        "--lens",
        choices=("logit", "tuned"),
        default="logit",
        help="tuned: states pass a map fitted on other texts first",
    )
    given = "transcript: a clip's text in quotes in its place; described: text and tone by name (default: audio)"
    add("--input", choices=INPUTS, default="audio", help=given)
    add("--generate", type=whole_number(0), default=0, metavar="N", help="N clips, 0 or more, answer in free text too (0)")
    add("--probe", action="store_true", help="keep the states, and say how well a linear probe tells words and voice from them")
