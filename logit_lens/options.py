"""The command-line options of the logit lens alone."""

from dataclasses import dataclass

from common.model.prompts import INPUTS
from common.run.command_line import Groups, whole_number


@dataclass(frozen=True)
class LensOptions:
    """Which `lens`, how many clips answer in free text besides, and whether states are kept for a `probe`."""

    lens: str
    generate: int
    probe: bool


OPTIONS: Groups = {
    "lens": {
        "--lens": {
            "choices": ("logit", "tuned"),
            "default": "logit",
            "help": "tuned: states pass a map fitted on other texts first",
        },
        "--input": {
            "choices": INPUTS,
            "default": "audio",
            "help": "transcript: a clip's text in quotes in its place; described: text and tone by name (default: audio)",
        },
        "--generate": {
            "type": whole_number(0),
            "default": 0,
            "metavar": "N",
            "help": "N clips, 0 or more, answer in free text too (0)",
        },
        "--probe": {
            "action": "store_true",
            "help": "keep the states, and say how well a linear probe tells words and voice from them",
        },
    }
}
