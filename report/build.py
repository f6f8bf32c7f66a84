"""Build the report from the outputs of both experiments: `python report/build.py` writes report/report.md and report/figures/."""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from activation_patching.facts import patching_facts  # noqa: E402
from activation_patching.words import CONSTRUCTION, patching_statements  # noqa: E402
from common.errors import InputError  # noqa: E402
from logit_lens.facts import lens_facts  # noqa: E402
from logit_lens.words import lens_statements  # noqa: E402
from report.alignment import align_figure  # noqa: E402
from report.published import published_beside  # noqa: E402
from report.tables import (  # noqa: E402
    answer_counts,
    checks,
    dropped,
    label_table,
    leave_out_table,
    lens_table,
    paired_table,
    patching_table,
    setting,
    table,
)

LENS_RESULTS = {"voice_lead": "+.2f", "win_prosody": ".2f", "win_semantic": ".2f", "crossing": ".1f"}
LENS_TABLES = ("layers", "congruent", "labels", "decision_layer", "leave_out")
PATCHING_TABLES = ("layers", "paired", "transfer", "contrast", "release_layer", "leave_out")
LENS_FIGURES = {
    "winrate_curve_conflict.png": "Whose label the answer would be at each layer: the words', the voice's, or neither's.",
    "margin_curve_conflict.png": "Mean margin: the voice's logit minus the words' logit. Above 0 the voice leads.",
    "congruent_curve.png": "How often congruent clips (words and voice agree) would be answered rightly, beside the others.",
    "lens_health.png": "Whether the five labels mean anything yet: their share of the probability in the whole vocabulary, the "
    "rank of the best of them, and how far the layer's distribution is from the final one.",
}
SCOPE = (
    "An interval speaks of more texts (speakers, sources) like those that it is over, with this prompt and this model; what "
    "it names as fixed it holds for alone. Texts or voices that the model was trained on stand for others of that kind, not for "
    "new ones."
)
TESTS = (
    "*Directedness*: of the answers that left another label than the target, those that came to it; beside it the same with "
    "the targets shuffled among these pairs. *Recovery*: the target's lead over the recipient's own answer, 1 as in the donor's "
    "run, 0 as unpatched. *Eligible*: pairs whose two clips are answered differently."
)
PAIRED = (
    "What the patch does beyond the same patch with a control donor, pair by pair: a donor with the recipient's own two labels, "
    "a random clip, silence of the donor's length. *p*: of flips against donors with the same labels, the larger of the test for "
    "clustered pairs and McNemar's exact one, Holm-corrected over layers and kinds of pairs. l = 0 and the last l are not tested."
)
PATCHING_FIGURES = {
    "flip_rate_curve_{kind}.png": "Share of {kind} pairs whose patched answer is the donor's label (target), and share whose "
    "answer is no longer the recipient's own.",
    "delta_logit_curve_{kind}.png": "What the patch adds to the target's logit in {kind} pairs.",
    "paired_curve_{kind}.png": "Flips to the target in {kind} pairs, minus those by control donors on the same pairs.",
    "span_and_tail_curve_{kind}.png": "Whose answer the hybrid gives, in {kind} pairs: that of the clip that lends the audio "
    "span, or that of the clip that lends the tail (question and start of the answer) from layer l on.",
}


def read_outputs(folder: Path, column: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return layers.csv and run.json of the experiment whose layers.csv has `column`.

    Raises InputError where they are missing, another experiment's, or the run has not finished.
    """
    try:
        layers, record = pd.read_csv(folder / "layers.csv"), json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no finished run to report on ({error}); run the experiment first") from None
    if not record.get("finished"):
        raise InputError(f"{folder}: its run has not finished; the same command goes on with it")
    if column not in layers:
        raise InputError(f"{folder}: its layers.csv has no column {column}, so it is of the other experiment")
    return layers, record


def read_tables(folder: Path, names: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Return a run's tables by the names of their files. Raises InputError where one is missing."""
    try:
        return {n: pd.read_csv(folder / f"{n}.csv", keep_default_na=False, na_values=[""]) for n in names}
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: not all tables of its run are there ({error}); run the experiment again") from None


def prompts_of(folder: Path) -> pd.DataFrame | None:
    """Return prompts.csv of --prompts all, of the folder itself or of the one that has the folder as one of its prompts."""
    found = [f for f in (folder / "prompts.csv", folder.parents[1] / "prompts.csv") if f.is_file()]
    return pd.read_csv(found[0]) if found else None


def build(lens_folder: Path, patching_folder: Path, out: Path, *, note: str = "") -> str:
    """Return the text of the report; copy the figures into `out`/figures. `note` stands beside what intervals are over."""
    lens, lens_record = read_outputs(lens_folder, "win_prosody")
    patching, patching_record = read_outputs(patching_folder, "flip_to_target")
    lens_tables, patching_tables = read_tables(lens_folder, LENS_TABLES), read_tables(patching_folder, PATCHING_TABLES)
    by_kind = dict(list(patching.groupby("kind", sort=False)))
    labels = lens_tables["labels"]
    records = {"logit lens": lens_record, "patching": patching_record}
    said = lens_statements(lens_facts(lens_tables), prompts_of(lens_folder))
    for kind, facts in patching_facts(patching_tables).items():
        said += patching_statements(kind, facts, prompts_of(patching_folder))
    (out / "figures").mkdir(parents=True, exist_ok=True)

    def figures(folder: Path, captions: dict[str, str]) -> str:
        for name in captions:
            try:
                shutil.copyfile(folder / name, out / "figures" / name)
            except OSError as error:
                raise InputError(f"{folder / name}: cannot be copied ({error.strerror}); run the experiment again") from None
        return "\n\n".join(f"![{caption}](figures/{name})\n\n*{caption}*" for name, caption in captions.items())

    prompts = {f"“{record['prompt_text']}”" for record in records.values()}
    tokens = ", ".join(f"{label} → `{token}`" for label, token in lens_record["label_tokens"].items())
    sections = [
        "# Words or voice: what the model answers with, and where",
        f"Built by `python report/build.py` from the CSVs of both experiments. Prompt: {' / '.join(sorted(prompts))}",
        "## In short",
        "\n".join(f"- {statement}" for statement in said),
        f"{SCOPE} {CONSTRUCTION} {note}".strip(),
        f"In brackets: 95 % intervals. l = 0 is the input of the first block, l = {lens.layer.iloc[-1]} what leaves the last.",
        *(f"**Warning** ({name}): {w}" for name, record in records.items() for w in record["warnings"]),
        "## Logit lens",
        "At every layer the last position's state goes through the model's own final norm and head; of the logits the five label "
        f"tokens are read ({tokens}). All is of the clips whose words and voice disagree, where nothing else is said.",
        figures(lens_folder, LENS_FIGURES),
        lens_table(lens),
        f"Whose label the answer is at l = {lens.layer.iloc[-1]}, by the labels of words (rows, w) and voice (columns, v); on "
        f"the diagonal both agree. Answers over all clips: {answer_counts(labels)}.",
        label_table(labels),
        "The main results without the clips of each label, in words or voice:",
        leave_out_table(lens_tables["leave_out"], LENS_RESULTS),
        published_beside(lens, lens_record),
        "## Activation patching",
        "At layer l the states of the recipient's audio span are replaced by the donor's, and the run goes on. Semantic pairs "
        "differ in the words' label, prosody pairs in the voice's; what else the two clips of a pair share stands below. The "
        "curve of flips starts at the donor's own answers (l = 0) and ends at the recipient's (the last l) by construction: what "
        "it shows in between is until when the answer still depends on the audio span. Where it falls, the information has left "
        "the span, which is not where emotion is computed.",
    ]
    for kind, layers in by_kind.items():
        captions = {name.format(kind=kind): text.format(kind=kind) for name, text in PATCHING_FIGURES.items()}
        real, paired = layers[layers.control == "none"], patching_tables["paired"][patching_tables["paired"].kind == kind]
        if not len(paired):
            captions.pop(f"paired_curve_{kind}.png")
        without = patching_tables["leave_out"][patching_tables["leave_out"].kind == kind]
        sections += [f"### {kind.capitalize()} pairs", figures(patching_folder, captions), patching_table(real), TESTS]
        if len(paired):
            sections += [PAIRED, paired_table(paired), "The main results without the pairs of each label:"]
            sections.append(leave_out_table(without, {"difference": "+.2f", "crossing": ".1f"}))
    if len(by_kind) > 1:
        sections.append(figures(patching_folder, {"contrast_curve.png": "Flips to target, semantic minus prosody pairs."}))
    sections.append(align_figure(patching_folder, out))
    sections += [
        "## How it was run",
        table(("run", "model", "used", "where", "versions", "commit", "time"), [setting(n, r) for n, r in records.items()]),
        dropped(records),
        "Before its work each run checks itself on two of its own clips, and the patching run on every pair:",
        checks(records),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--lens", type=Path, default=ROOT / "logit_lens" / "outputs", help="outputs of logit_lens/run.py")
    parser.add_argument(
        "--patching", type=Path, default=ROOT / "activation_patching" / "outputs", help="outputs of activation_patching/run.py"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder for report.md and figures/")
    parser.add_argument(
        "--note", default="", help="what the model has seen of the clips in training: it stands beside the intervals"
    )
    args = parser.parse_args(argv)
    try:
        text = build(args.lens, args.patching, args.out, note=args.note)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    (args.out / "report.md").write_text(text, encoding="utf-8")
    print(f"written: {args.out / 'report.md'}")


if __name__ == "__main__":
    main()
