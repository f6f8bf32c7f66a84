"""Write the card of a replication from two finished runs: card.md and card.zh.md, a page each that can be posted.

It says what a model answers with, beside what is published of it on the same clips; until where its audio carries words and
voice; and how to repeat that. `make replicate MODEL=hub-id EMIS=folder` makes the runs and the card.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))
if ROOT / "common" not in {Path(p).resolve() for p in getattr(sys.modules.get("common"), "__path__", ())}:
    sys.modules.pop("common", None)  # a notebook's own, of the same name
from common.environment import patient_streams, prepare

prepare(__file__)

import pandas as pd

from activation_patching.span.findings import span_effects
from common import files
from common.errors import InputError
from common.files import write_whole
from common.paths import given_path
from common.run.record import shown
from common.stats.findings import fixed, over
from logit_lens.findings import Answers, lens_findings
from report.language import LANGUAGES
from report.render import environment, squeezed
from report.runs import EXPERIMENTS, Outputs, Trouble, checks_of, joined, read_outputs, unlike, unwell
from report.sections.published import published_figures


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--lens", type=given_path, required=True, metavar="DIR", help="outputs of logit_lens/run.py")
    add("--patching", type=given_path, required=True, metavar="DIR", help="outputs of activation_patching/run.py")
    add("--out", type=given_path, required=True, metavar="DIR", help="folder for card.md and card.zh.md")
    args = parser.parse_args(argv)
    try:
        print("\n".join(f"card     {shown(file)}" for file in write_cards(args.lens, args.patching, args.out)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def write_cards(lens: Path, patching: Path, out: Path) -> list[Path]:
    """Write the card in each language; return the files. Raises InputError where the folders have no two runs of one thing."""
    files.check(out)
    found = facts(_finished("lens", lens), _finished("patching", patching))
    written = [out / ("card.md" if language == "en" else f"card.{language}.md") for language in LANGUAGES]
    try:
        files.take(out)
        options = f"--lens {_quoted(lens)} --patching {_quoted(patching)} --out {_quoted(out)}"
        found["commands"].append(f"python report/card.py {options}")
        for language, file in zip(LANGUAGES, written):
            write_whole(file, squeezed(environment(language).get_template(f"card.{language}.md.jinja").render(found)))
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    return written


def _finished(experiment: str, folder: Path) -> Outputs:
    run = read_outputs(experiment, folder)
    if isinstance(run, Trouble):
        raise InputError(f"--{experiment} {folder}: no finished run to make a card of ({run.values['why']})")
    return run


def facts(lens: Outputs, patching: Outputs) -> dict[str, Any]:
    """Return what the templates of the card show. Raises InputError where the two runs are not of the same thing."""
    if differing := unlike(lens, patching):
        raise InputError(f"--patching {patching.folder}: not of the same thing as --lens; they differ in {'; '.join(differing)}")
    layers, (of_clips, of_model) = lens.tables["layers"].iloc[-1], published_figures(lens)
    found = lens_findings(lens.tables)
    answers = found.answers
    return {
        "lens": lens,
        "patching": patching,
        "set": of_clips.clips.iloc[0] if len(of_clips) else None,
        "answers": answers,
        "congruent": found.congruent,
        "reading": found.reading,
        "spans": sorted(span_effects(patching.tables), key=lambda f: f.kind != "semantic"),
        "published": [row._asdict() | _beside(row, answers) for row in of_model.itertuples(index=False)],
        "scope": {
            "over": over(layers),
            "fixed": [count for count in fixed(layers) if count.name != "sources"],
            "several_prompts": False,
            "spans": [],  # effects are defined beneath their table
        },
        "commands": [*_imported(of_clips, lens), *(run.record["command"] for run in (lens, patching) if "command" in run.record)],
        "checks": sum(len(checks_of(run)) for run in (lens, patching)),
        "troubles": joined([_of_experiment(trouble) for run in (lens, patching) for trouble in unwell(run)]),
    }


def _of_experiment(trouble: Trouble) -> Trouble:
    """Return a trouble that names its script in place of a folder, which a stranger does not have."""
    return Trouble(trouble.name, trouble.values | {"folder": f"{EXPERIMENTS[trouble.values['experiment']]}/run.py"})


def _imported(of_clips: pd.DataFrame, lens: Outputs) -> list[str]:
    """Return the command that writes the manifest of a data set that published figures are of."""
    labels = " ".join(map(shlex.quote, lens.identity["labels"]))
    sets, manifest = of_clips.clips.unique(), _quoted(lens.identity["data"])
    return [f"python data/import_dataset.py {name} FOLDER --labels {labels} --out {manifest}" for name in sets]


def _quoted(path: Path | str) -> str:
    return shlex.quote(shown(path))


def _beside(row: Any, answers: Answers) -> dict[str, Any]:
    """Return on which side of the run's intervals published shares lie: -1 below, 0 within, 1 above; None without interval."""
    other = 1 - row.words - row.voice
    of = {"words": (row.words, answers.words), "voice": (row.voice, answers.voice), "neither": (other, answers.neither)}
    sides = {cue: None if e.low != e.low else int(value > e.high) - int(value < e.low) for cue, (value, e) in of.items()}
    return {"sides": sides, "neither": other}


if __name__ == "__main__":
    patient_streams()
    main()
