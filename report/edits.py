"""What erasing and exchanging a label's subspace did, from runs of their own below a patching run's folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from activation_patching.facts import edit_facts

from activation_patching.plots import edit_figure, plot_edits
from common.plotting import Look
from common.running.output import read_record, read_table, subtitle
from report.inputs import EDIT_TABLES, SHARED, Outputs


@dataclass(frozen=True)
class Edited:
    """A run of `edit` "erase" or "exchange" `at` "span" or "last": its figure, and the sentences by kind of pair."""

    edit: str
    at: str
    figure: str
    sentences: list[str]


def edited(run: Outputs, *, out: Path, folder: str, wording: ModuleType, words: Mapping[str, str] | None) -> list[Edited]:
    """Return what the edits below a run's folder did; those of another model, prompt or clips are passed over."""
    found = []
    for path in sorted(run.folder.glob("*/run.json")):
        record = read_record(path.parent)
        identity = record["identity"]
        alike = all(identity.get(name) == run.identity.get(name) for name in SHARED)
        if identity.get("intervention", "span") == "span" or not record["finished"] or not alike:
            continue
        names = [n for n in EDIT_TABLES if (path.parent / f"{n}.csv").exists()]
        tables = {name: read_table(path.parent, name) for name in names}
        place = f"{folder}/{path.parent.name}"
        (out / place).mkdir(parents=True, exist_ok=True)
        plot_edits(path.parent, out / place, Look(subtitle(record), words))
        sentences = [s for kind, facts in edit_facts(tables).items() for s in wording.edit_sentences(kind, facts)]
        found.append(Edited(identity["intervention"], identity["at"], f"{place}/{edit_figure(tables['layers'])}", sentences))
    return found
