"""Words alone: answers to a clip's audio, to its text, and to its text with the tone named, on the same clips."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from common.stats.facts import Fact, fact, shown, sided
from common.stats.nulls import shuffled_hits
from logit_lens.decision import OUTCOMES, conflict_rows
from matplotlib.axes import Axes

from common.clips.pairs import KINDS
from common.plotting import COLORS, Look, figure, level, points
from common.running.output import subtitle
from common.stats.metrics import Metric, gain, layer_table
from common.stats.units import clip_units, label_codes, labels_of
from logit_lens.plots import NAMES
from report.inputs import Outputs, Study, Trouble, mixed_up, read_outputs, unlike, unwell
from report.markdown import Say, table

RUNGS = {"audio": "audio", "transcript": "transcript", "told": "transcript\nand tone"}
WORDS_SHUFFLED = "answers shuffled among clips with the same voice's label"


@dataclass(frozen=True)
class Ladder:
    """The rungs as a template shows them: Markdown, and a figure below the report."""

    sentences: list[str]
    table: str
    figure: str


def read_texts(study: Study) -> tuple[dict[str, Outputs], list[Trouble]]:
    """Return the runs of the lens run's clips as text, from the folders of these names beside its lens.csv, and what is wrong.

    A run of another model, prompt or set of clips is left out: its answers are to something else.
    """
    texts: dict[str, Outputs] = {}
    troubles: list[Trouble] = []
    places = {name: study.lens.folder / name for name in RUNGS if name != "audio"} if study.lens else {}
    for name, place in places.items():
        if not (place / "run.json").is_file():
            continue
        run = read_outputs("lens", place, given=name)
        if isinstance(run, Trouble):
            troubles.append(run)
        elif study.lens and unlike(run, study.lens):
            troubles.append(mixed_up(run, study.lens))
        else:
            texts[name] = run
            troubles += unwell(run)
    return texts, troubles


def ladder_facts(lens: Outputs, texts: Mapping[str, Outputs]) -> dict[str, Fact]:
    """Return what the rungs show at l = L of the conflict clips that all of them have; nothing where they share none.

    `rung: outcome` are shares, `audio - rung: outcome` paired differences of them. `transcript: excess` is how much more often
    the text is answered with the words' label than with answers shuffled: 0 where the model makes nothing of the text.
    """
    conflict = {name: conflict_rows(run.rows) for name, run in {"audio": lens, **texts}.items()}
    shared = set.intersection(*(set(rows.sample_id) for rows in conflict.values()))
    if not shared:
        return {}
    units = {name: clip_units(rows[rows.sample_id.isin(shared)]) for name, rows in conflict.items()}
    wins = {(name, o): (u.grid("outcome") == o).astype(float) for name, u in units.items() for o in OUTCOMES}
    metrics = {f"{name}: {o}": Metric(won, share=True) for (name, o), won in wins.items()}
    differences = {f"audio - {name}: {o}": gain(wins["audio", o] - wins[name, o]) for name in texts for o in OUTCOMES}
    if len(texts) == 2:
        differences["told - transcript: prosody"] = gain(wins["told", "prosody"] - wins["transcript", "prosody"])
    if "transcript" in texts:
        read, labels = units["transcript"], labels_of(lens.rows)
        words, voice = (label_codes(read.firsts[f"{kind}_label"], labels) for kind in KINDS)
        answers = label_codes(read.rows.winner, labels).reshape(len(read.firsts), -1)
        null = shuffled_hits(voice, answers, words, np.ones(answers.shape, dtype=bool))
        differences["transcript: excess"] = gain(wins["transcript", "semantic"] - null)
    last = layer_table(units["audio"], metrics | differences, seed=0).iloc[-1]
    told: dict[str, Any] = {"unit": "share of clips", "test": "95 % interval of a paired difference of shares"}
    facts = [fact(last, name, unit=told["unit"]) for name in metrics]
    for name in differences:
        control = WORDS_SHUFFLED if name == "transcript: excess" else ""
        facts.append(fact(last, name, verdict={1: "more", -1: "less", 0: "none"}[sided(last, name)], control=control, **told))
    return {f.name: f for f in facts}


def ladder(
    study: Study,
    texts: Mapping[str, Outputs],
    *,
    out: Path,
    folder: str,
    wording: ModuleType,
    say: Say,
    words: Mapping[str, str] | None,
) -> Ladder | None:
    """Draw the ladder and say what it shows; None where the lens run has no run of its clips' texts beside it."""
    facts = ladder_facts(study.lens, texts) if study.lens and "transcript" in texts else {}
    if not facts:
        return None
    file, look = f"{folder}/ladder.png", Look(subtitle(study.first.record), words)
    with figure(
        out / file,
        look,
        xlabel="",
        ylabel=look.say("answer follows (share of clips)"),
        caption=look.say("n = {n} conflict clips, the same on every rung; 95 % intervals", n=facts["audio: other"].n),
    ) as axes:
        _draw(axes, facts, look, chance=1 / len(study.first.identity["labels"]))
    return Ladder(wording.ladder(facts), _table(facts, say), file)


def _draw(axes: Axes, facts: Mapping[str, Fact], look: Look, *, chance: float) -> None:
    rungs = [name for name in RUNGS if f"{name}: other" in facts]
    for place, (outcome, color) in enumerate(COLORS.items()):
        found = [facts[f"{name}: {outcome}"] for name in rungs]
        x = [i + 0.07 * (place - 1) for i in range(len(rungs))]
        values = np.array([f.value for f in found])
        ends = np.nan_to_num([[f.value - f.lo for f in found], [f.hi - f.value for f in found]])
        style: Any = {"color": color, "marker": "os^"[place], "markersize": 9, "linewidth": 1.2, "elinewidth": 2.5, "capsize": 5}
        style["linestyle"] = "--" if outcome == "other" else "-"
        points(axes, x, values, ends.clip(0), name=look.say(NAMES[outcome]), **style)
    level(axes, chance, look.say("chance"))
    axes.set_xticks(range(len(rungs)), [look.say(RUNGS[name]) for name in rungs])
    axes.set_xlim(-0.3, len(rungs) - 0.7)
    axes.set_ylim(-0.03, 1.03)


def _table(facts: Mapping[str, Fact], say: Say) -> str:
    def row(name: str, prefix: str, form: str) -> list[str]:
        cells = [facts[f"{prefix}: {outcome}"] for outcome in OUTCOMES]
        return [name, str(cells[0].n), *(shown(f.value, f.lo, f.hi, form) for f in cells)]

    rungs = {name: say(shown_as.replace("\n", " ")) for name, shown_as in RUNGS.items() if f"{name}: other" in facts}
    rows = [row(text, name, ".2f") for name, text in rungs.items()]
    rows += [row(f"{rungs['audio']} − {text}", f"audio - {name}", "+.2f") for name, text in rungs.items() if name != "audio"]
    return table([say(h) for h in ("clips given as", "n", "the words' label", "the voice's label", "neither")], rows)
