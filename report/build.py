"""Build the report from the outputs of both experiments: `python report/build.py` writes report/report.md and report/figures/."""

import argparse
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from common.samples import InputError  # noqa: E402

LENS_FIGURES = {
    "winrate_curve_conflict.png": "Whose label the answer would be at each layer: the words', the voice's, or neither's.",
    "margin_curve_conflict.png": "Mean margin: the voice's logit minus the words' logit. Above 0 the voice leads.",
}
PATCHING_FIGURES = {
    "flip_rate_curve_{kind}.png": "Share of {kind} pairs whose patched answer is the donor's label (target), and share whose "
    "answer is no longer the recipient's own.",
    "delta_logit_curve_{kind}.png": "What the patch adds to the target's logit in {kind} pairs.",
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


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(row: pd.Series, column: str, form: str = ".2f") -> str:
    """Return "mean [low, high]", or the mean alone where there is no interval."""
    low, high = row[f"{column}_lo"], row[f"{column}_hi"]
    return f"{row[column]:{form}}" + ("" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]")


def lens_table(layers: pd.DataFrame) -> str:
    columns = {"margin": "+.2f", "win_semantic": ".2f", "win_prosody": ".2f", "win_other": ".2f"}
    rows = [[str(int(r.layer)), *(interval(r, c, f) for c, f in columns.items())] for _, r in layers.iterrows()]
    return table(("l", "margin (logits)", "words win", "voice wins", "neither"), rows)


def patching_table(layers: pd.DataFrame) -> str:
    columns = {"flip_to_target": ".2f", "flip_from_base": ".2f", "delta_logit": "+.2f"}
    rows = [[str(int(r.layer)), *(interval(r, c, f) for c, f in columns.items())] for _, r in layers.iterrows()]
    return table(("l", "flip to target", "flip from base", "Δ target logit"), rows)


def lens_in_short(layers: pd.DataFrame) -> str:
    last, best = layers.iloc[-1], layers.loc[layers.win_prosody.idxmax()]
    return (
        f"- **Its answer** on {last.n:.0f} conflict clips: the words' label {interval(last, 'win_semantic')}, the voice's "
        f"{interval(last, 'win_prosody')}, neither {interval(last, 'win_other')}; "
        f"margin {interval(last, 'margin', '+.2f')} logits.\n"
        f"- **On the way there** the voice's label wins most at l = {best.layer:.0f}: {interval(best, 'win_prosody')}."
    )


def patching_in_short(kind: str, layers: pd.DataFrame) -> str:
    first = layers.iloc[0]
    words = "words" if kind == "semantic" else "voice"
    return (
        f"- **The donor's {words}** ({first.n:.0f} {kind} pairs): put in at l = 0 they flip the answer to the donor's label in "
        f"{interval(first, 'flip_to_target')} (the donor itself says it in {first.ceiling:.2f}, the recipient unpatched in "
        f"{first.floor:.2f}) and add {interval(first, 'delta_logit', '+.2f')} to its logit."
    )


def setting(name: str, record: dict[str, Any]) -> list[str]:
    """Return one line of the table of runs."""
    identity, counts = record["identity"], record["counts"]
    pairs = [f"{of_kind['kept']} {kind} pairs" for kind, of_kind in counts.get("pairs", {}).items()]
    used = ", ".join([f"{counts['clips']} clips", *pairs])
    where = f"{identity['dtype']} on {identity['device']}, seed {identity['seed']}"
    versions = f"torch {identity['versions']['torch']}, transformers {identity['versions']['transformers']}"
    return [
        name,
        f"`{identity['model']}` ({record['model_class']})",
        used,
        where,
        versions,
        record["commit"],
        f"{record['seconds']:.0f} s",
    ]


def checks(records: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, record in records.items():
        figures = record["self_check"] | record["counts"].get("controls", {})
        rows += [[name, check, f"{figure:.1e}"] for check, figure in figures.items() if isinstance(figure, float)]
    return table(("run", "check", "largest difference of two logits"), rows)


def dropped(records: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, record in records.items():
        counts = record["counts"]
        lines.append(f"- {name}, clips left out: {_reasons(counts['dropped'])}")
        for kind, of_kind in counts.get("pairs", {}).items():
            lines.append(
                f"- {name}, {kind} pairs left out: {_reasons(of_kind['dropped'])}; the two clips share {of_kind['share']}"
            )
    return "\n".join(lines)


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items() if n) or "none"


def build(lens_folder: Path, patching_folder: Path, out: Path) -> str:
    """Return the text of the report; copy the figures into `out`/figures."""
    lens, lens_record = read_outputs(lens_folder, "win_prosody")
    patching, patching_record = read_outputs(patching_folder, "flip_to_target")
    records = {"logit lens": lens_record, "patching": patching_record}
    by_kind = dict(list(patching.groupby("kind", sort=False)))
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
        "\n".join([lens_in_short(lens), *(patching_in_short(k, t) for k, t in by_kind.items())]),
        "Means over clips or pairs; in brackets 95 % intervals of a bootstrap over texts. l = 0 is the input of the first block, "
        f"l = {lens.layer.iloc[-1]} what leaves the last.",
        "## Logit lens",
        "At every layer the last position's state goes through the model's own final norm and head; of the logits the five label "
        f"tokens are read ({tokens}). Only clips whose words and voice disagree.",
        figures(lens_folder, LENS_FIGURES),
        lens_table(lens),
        "## Activation patching",
        "At layer l the states of the recipient's audio span are replaced by the donor's, and the run goes on. Semantic pairs "
        "differ in the words' label, prosody pairs in the voice's; what else the two clips of a pair share stands below. The "
        "curve of flips starts at the donor's own answers (l = 0) and ends at the recipient's (the last l) by construction: what "
        "it shows in between is until when the answer still depends on the audio span. Where it falls, the information has left "
        "the span, which is not where emotion is computed.",
    ]
    for kind, layers in by_kind.items():
        captions = {name.format(kind=kind): text.format(kind=kind) for name, text in PATCHING_FIGURES.items()}
        sections += [f"### {kind.capitalize()} pairs", figures(patching_folder, captions), patching_table(layers)]
    sections += [
        "## How it was run",
        table(("run", "model", "used", "where", "versions", "commit", "time"), [setting(n, r) for n, r in records.items()]),
        dropped(records),
        "Before its work each run checks itself on two of its own clips, and the patching run on every pair:",
        checks(records),
    ]
    return "\n\n".join(sections) + "\n"


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--lens", type=Path, default=ROOT / "logit_lens" / "outputs", help="outputs of logit_lens/run.py")
    parser.add_argument(
        "--patching", type=Path, default=ROOT / "activation_patching" / "outputs", help="outputs of activation_patching/run.py"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder for report.md and figures/")
    args = parser.parse_args(argv)
    try:
        text = build(args.lens, args.patching, args.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    (args.out / "report.md").write_text(text, encoding="utf-8")
    print(f"written: {args.out / 'report.md'}")


if __name__ == "__main__":
    run()
