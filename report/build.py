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

from activation_patching.tables import patch_layers  # noqa: E402
from common.errors import InputError  # noqa: E402
from common.plotting import COLORS, curve, figure, resampled  # noqa: E402
from common.stats.landmarks import stated, where  # noqa: E402
from report.published import published_beside  # noqa: E402
from report.tables import (  # noqa: E402
    answer_counts,
    checks,
    controls_table,
    dropped,
    label_table,
    lens_table,
    patching_table,
    setting,
    table,
    tests_table,
)

LENS_FIGURES = {
    "winrate_curve_conflict.png": "Whose label the answer would be at each layer: the words', the voice's, or neither's.",
    "margin_curve_conflict.png": "Mean margin: the voice's logit minus the words' logit. Above 0 the voice leads.",
    "congruent_curve.png": "How often congruent clips (words and voice agree) would be answered rightly, beside the others.",
    "lens_health.png": "Whether the five labels mean anything yet: their share of the probability in the whole vocabulary, the "
    "rank of the best of them, and how far the layer's distribution is from the final one.",
}
TESTS = (
    "*Flips gained*: flip to target minus the floor. *p*: exact McNemar test against the floor or, where larger, the one for "
    "clustered pairs, Holm-corrected over layers. *Directedness*: of the answers that left another label than the target, "
    "those that came to it; 0.25 if the patch only disturbs. *Recovery*: the target's lead over the recipient's own answer, 1 as "
    "in the donor's run, 0 as unpatched. *Eligible*: pairs whose two clips are answered differently."
)
PATCHING_FIGURES = {
    "flip_rate_curve_{kind}.png": "Share of {kind} pairs whose patched answer is the donor's label (target), and share whose "
    "answer is no longer the recipient's own.",
    "delta_logit_curve_{kind}.png": "What the patch adds to the target's logit in {kind} pairs.",
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


def lens_in_short(layers: pd.DataFrame, congruent: pd.DataFrame, decision: pd.Series) -> str:
    last, best = layers.iloc[-1], layers.loc[layers.win_prosody.idxmax()]
    side = {"prosody": " for the voice", "semantic": " for the words"}.get(decision.side, "")
    right = (
        f" On {congruent.n.iloc[-1]} congruent clips it is right in {stated(congruent.iloc[-1], 'accuracy')}."
        if len(congruent)
        else ""
    )
    return (
        f"- **Its answer** on {last.n:.0f} conflict clips: the words' label {stated(last, 'win_semantic')}, the voice's "
        f"{stated(last, 'win_prosody')} (were the voice ignored: {stated(last, 'win_prosody_null')}), neither "
        f"{stated(last, 'win_other')}; margin {stated(last, 'margin', '+.2f')} logits.{right}\n"
        f"- **On the way there** the voice's label wins most at l = {best.layer:.0f}: {stated(best, 'win_prosody')}.\n"
        f"- **Decision layer** (from which the band of the margin stays on one side of 0): "
        f"{where(decision, 'decision_layer', f'decided{side}')}."
    )


def patching_in_short(kind: str, layers: pd.DataFrame, until: pd.Series) -> str:
    real = layers[layers.control == "none"]
    first = real.iloc[0]
    words = "words" if kind == "semantic" else "voice"
    alike = layers[(layers.control == "same_labels_donor") & (layers.layer == 0)]
    beside = (
        f"; a donor with the recipient's own labels does so in {stated(alike.iloc[0], 'flip_to_target')}" if len(alike) else ""
    )
    return (
        f"- **The donor's {words}** ({first.n:.0f} {kind} pairs): put in at l = 0 they flip the answer to the donor's label in "
        f"{stated(first, 'flip_to_target')} (the donor itself says it in {first.ceiling:.2f}, the recipient unpatched in "
        f"{first.floor:.2f}{beside}) and add {stated(first, 'delta_logit', '+.2f')} to its logit; "
        f"{where(until, 'release_layer', 'the effect of the span is below half')}."
    )


def align_figure(folder: Path, out: Path) -> str:
    """Draw the three alignments on the pairs that all of them have, if `folder` has their runs; return the section."""
    runs = {name: folder / "align" / name for name in ("splice", "crop", "stretch")}
    if not all((path / "run.json").is_file() for path in runs.values()):
        return ""
    rows = {name: pd.read_csv(path / "patches.csv", dtype={"control": str}) for name, path in runs.items()}
    shared = set.intersection(*(set(r.pair_id[r.control == "none"]) for r in rows.values()))
    tables = {name: patch_layers(r[r.pair_id.isin(shared)], seed=0) for name, r in rows.items()}
    first = tables["splice"].iloc[0]
    question = json.loads((runs["splice"] / "run.json").read_text(encoding="utf-8"))["prompt_text"].replace("{audio}", "")
    caption = f"the same {first.n} {first.kind} pairs, {first.n_texts} texts; {resampled(first.clusters)}"
    with figure(out / "figures" / "align_curve.png", ylabel="flip to target (share of pairs)", caption=caption) as axes:
        for (name, layers), style, color in zip(tables.items(), ("-", "--", ":"), (COLORS[first.kind], "#000000", "#E69F00")):
            curve(axes, layers, "flip_to_target", color=color, label=f"--align {name}", style=style)
        axes.set_ylim(-0.03, 1.03)
    largest = max(float((t.flip_to_target - tables["splice"].flip_to_target).abs().max()) for t in tables.values())
    text = (
        "A donor's span is seldom as long as the recipient's. Splice needs no alignment; crop puts the donor's first positions "
        "into the recipient's span, stretch interpolates the donor's over time to its length. Asked of the same "
        f"{first.kind} pairs (“{question}”), the three curves of flips differ by {largest:.2f} at most."
    )
    picture = "The three ways of putting a span of another length into the recipient's run."
    return f"### Does the alignment carry the result?\n\n{text}\n\n![{picture}](figures/align_curve.png)\n\n*{picture}*"


def build(lens_folder: Path, patching_folder: Path, out: Path) -> str:
    """Return the text of the report; copy the figures into `out`/figures."""
    lens, lens_record = read_outputs(lens_folder, "win_prosody")
    patching, patching_record = read_outputs(patching_folder, "flip_to_target")
    congruent, labels, decision = (pd.read_csv(lens_folder / f"{t}.csv") for t in ("congruent", "labels", "decision_layer"))
    until = pd.read_csv(patching_folder / "release_layer.csv")
    records = {"logit lens": lens_record, "patching": patching_record}
    by_kind = dict(list(patching.groupby("kind", sort=False)))
    stops = {kind: until[(until.kind == kind) & (until.control == "none")].iloc[0] for kind in by_kind}
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
        "\n".join(
            [lens_in_short(lens, congruent, decision.iloc[0]), *(patching_in_short(k, t, stops[k]) for k, t in by_kind.items())]
        ),
        f"Means over clips or pairs; in brackets 95 % intervals over {lens.clusters[0]}. l = 0 is the input of the first block, "
        f"l = {lens.layer.iloc[-1]} what leaves the last.",
        *(f"**Warning** ({name}): {w}" for name, record in records.items() for w in record["warnings"]),
        "## Logit lens",
        "At every layer the last position's state goes through the model's own final norm and head; of the logits the five label "
        f"tokens are read ({tokens}). All is of the clips whose words and voice disagree, where nothing else is said.",
        figures(lens_folder, LENS_FIGURES),
        lens_table(lens),
        f"Whose label the answer is at l = {lens.layer.iloc[-1]}, by the labels of words (rows, w) and voice (columns, v); on "
        f"the diagonal both agree. Answers over all clips: {answer_counts(labels)}.",
        label_table(labels),
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
        real = layers[layers.control == "none"]
        sections += [f"### {kind.capitalize()} pairs", figures(patching_folder, captions), patching_table(real), TESTS]
        sections += [tests_table(real), "The same patch with control donors:", controls_table(layers)]
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
    args = parser.parse_args(argv)
    try:
        text = build(args.lens, args.patching, args.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    (args.out / "report.md").write_text(text, encoding="utf-8")
    print(f"written: {args.out / 'report.md'}")


if __name__ == "__main__":
    main()
