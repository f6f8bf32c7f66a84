"""Both experiments' outputs of a model whose truth is known, made without a model: which cue it follows, from and until where."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image

import report.build
from activation_patching.span.patch import Patched
from activation_patching.span.rows import pair_rows
from activation_patching.span.tables import tables_of
from common import plotting
from common.clips.manifest import COLUMNS, LABELS, Sample
from common.clips.pairs import DISTURBANCES, KINDS, SAME_TEXT, PairRules, build_pairs, control_pairs
from common.files import claim
from common.model.readout import Readout
from common.run.run_folder import write_record, write_tables
from logit_lens.rows import lens_rows
from logit_lens.tables import conflict_rows, lens_tables
from report.runs import EXPERIMENTS

LAYERS = 7  # l = 0 to L = 6
BEYOND = ("unanswered", "beyond_permuted", "beyond_random_weights", "beyond_duration_and_level")
RATE = 16000


@dataclass(frozen=True)
class Truth:
    """What a model does: `gains` of words' and voice's logit from layer `begins` on; the span carries it until `ends`."""

    words: float = 0.0
    voice: float = 4.0
    begins: float = 2.5
    ends: float = 3.5
    deaf: bool = False


def save_samples(folder: Path, labels: Sequence[str], *, texts: int, speakers: Sequence[str], mark: str = "") -> list[Sample]:
    """Write clips and their manifest; `mark` goes into every text, id, speaker and file name."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for words in labels:
        for number in range(texts):
            for voice in labels:
                for speaker in speakers:
                    code = f"{labels.index(words)}{number}{labels.index(voice)}{speaker}"
                    audio = folder / f"{code}{mark.replace('/', '')}.wav"
                    tone = np.sin(2 * np.pi * 200 * (1 + labels.index(voice)) * np.arange(RATE // 4) / RATE)
                    soundfile.write(audio, 0.3 * tone, RATE)
                    about = (f"a text{mark}", f"{words}{number}{mark}", words, voice, f"{speaker}{mark}", "en", f"made{mark}")
                    samples.append(Sample(f"{code}{mark}", audio, *about))
    rows = [asdict(s) | {"audio": s.audio.name} for s in samples]
    pd.DataFrame(rows)[list(COLUMNS)].to_csv(folder / "manifest.csv", index=False)
    return samples


def save_study(
    folder: Path,
    truth: Truth = Truth(),
    *,
    labels: Sequence[str] = LABELS,
    texts: int = 4,
    speakers: Sequence[str] = ("a", "b"),
    mark: str = "",
    name: str = "model",
    pairs: int = 120,
    controls: bool = False,
) -> Path:
    """Write what both scripts would for a model of that truth: `folder`/lens, `folder`/patching and `folder`/clips."""
    samples = save_samples(folder / "clips", list(labels), texts=texts, speakers=speakers, mark=mark)
    logits = _logits(samples, list(labels), truth)
    lens = _lens_rows(samples, logits, list(labels))
    patches = _patch_rows(samples, logits, list(labels), truth, pairs=pairs, controls=controls)
    probed = _probed(lens)
    for experiment, rows, tables in (("lens", lens, lens_tables(lens) | probed), ("patching", patches, tables_of(patches))):
        out = folder / experiment
        out.mkdir(parents=True, exist_ok=True)
        rows.to_csv(out / ("lens.csv" if experiment == "lens" else "patches.csv"), index=False)
        write_tables(out, tables)
        write_record(out, _record(folder, experiment, rows, list(labels), name))
    return folder


def save_exchange(folder: Path, *, labels: Sequence[str] = LABELS) -> Path:
    """Write below the patching run of a study what exchanging the voice's label would give: the voice is needed."""
    rows = pd.read_csv(folder / "patching" / "patches.csv", keep_default_na=False, na_values=[""])
    real = rows[rows.control == "none"].assign(intervention="exchange", at="last", rank=4, decoded=1)
    random = real.assign(
        pair_id=real.pair_id + "|random_subspace", control="random_subspace", flip_to_target=0, flip_from_base=0, delta_logit=0
    )
    random = random.assign(**{f"logit_{label}": random[f"base_{label}"] for label in labels}, pred_patch=random.pred_base)
    whole = real.assign(pair_id=real.pair_id + "|whole", control="whole")
    out = folder / "patching" / "exchange"
    out.mkdir(parents=True)
    found = pd.concat([real, random, whole])
    found.to_csv(out / "patches.csv", index=False)
    write_tables(out, tables_of(found))
    checked = {"self_check__exchange by splice - rerun": 0.0}
    change_record(folder / "patching", out, identity__intervention="exchange", identity__at="last", **checked)
    return out


def _probed(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of probes that decode the voice from layer 3 on, the words never."""
    n, found, means = conflict_rows(rows).sample_id.nunique(), [], []
    for kind in KINDS:
        for probe, positions in (
            ("states", ("span", "last")),
            ("random_weights", ("span", "last")),
            ("duration_and_level", ("clip",)),
        ):
            for position in positions:
                for layer in range(LAYERS) if position != "clip" else [np.nan]:
                    accuracy = 0.9 if probe == "states" and kind == "prosody" and layer >= 3 else 0.2
                    row = {"label": kind, "probe": probe, "position": position, "layer": layer, "n": n, "accuracy": accuracy}
                    found.append(
                        row | {"accuracy_lo": accuracy - 0.1, "accuracy_hi": accuracy + 0.1, "answered": 0.5, "chance": 0.2}
                    )
        decoded = kind == "prosody"
        row = {"label": kind, "n": n, "n_texts": 4, "n_speakers": 2, "clusters": "texts", "chance": 0.2}
        for column, value in (("accuracy", 0.9 if decoded else 0.2), *((c, 0.5 if decoded else 0.0) for c in BEYOND)):
            row |= {column: value, f"{column}_lo": value - 0.1, f"{column}_hi": value + 0.1}
        means.append(row)
    return {"probe": pd.DataFrame(found), "decoding": pd.DataFrame(means)}


def _logits(samples: list[Sample], labels: list[str], truth: Truth) -> np.ndarray:
    """Return the label logits [sample, layer, label]; at l = 0 those of all clips are alike."""
    rng = np.random.default_rng(0)
    habit = rng.normal(0, 0.5, (LAYERS, len(labels)))
    logits = np.repeat(habit[None], len(samples), axis=0)
    if truth.deaf:
        return logits
    of_text = {text: rng.normal(0, 0.4, (LAYERS, len(labels))) for text in sorted({s.text_id for s in samples})}
    grown = 1 / (1 + np.exp(-4 * (np.arange(LAYERS) - truth.begins)))
    grown[0] = 0
    for i, sample in enumerate(samples):
        noise = of_text[sample.text_id] + rng.normal(0, 0.4, (LAYERS, len(labels)))
        noise[0] = 0
        logits[i] += noise
        logits[i, :, labels.index(sample.semantic_label)] += truth.words * grown
        logits[i, :, labels.index(sample.prosody_label)] += truth.voice * grown
    return logits


def _readout(labels: list[str]) -> Readout:
    """Return a readout in whose vocabulary the labels stand behind one token of what else could be said."""
    return Readout(tuple(labels), tuple(labels), tuple(range(1, len(labels) + 1)), tuple(labels))


def _lens_rows(samples: list[Sample], logits: np.ndarray, labels: list[str]) -> pd.DataFrame:
    """Return rows of the lens: the labels' share of the probability grows with the layer; two thirds of the clips speak."""
    grown = np.maximum(np.arange(LAYERS) / LAYERS, 1e-9)
    other = np.logaddexp.reduce(logits, axis=2, keepdims=True) + np.log(1 / grown - 1)[:, None]
    vocabulary, rows = torch.tensor(np.concatenate([other, logits], axis=2)), []
    for number, (sample, of_sample) in enumerate(zip(samples, vocabulary)):
        made = lens_rows(_readout(labels), sample, of_sample, of_sample[:, 1:], layers=range(LAYERS))
        told = {"said": made[-1]["winner"] if number % 3 else "", "spoke": 1}
        rows += [row | {"said": "", "spoke": 0} for row in made[:-1]] + [made[-1] | told]
    return pd.DataFrame(rows)


def _patch_rows(
    samples: list[Sample], logits: np.ndarray, labels: list[str], truth: Truth, *, pairs: int, controls: bool
) -> pd.DataFrame:
    """Return rows of patches: at layer l the answer is between the donor's and the recipient's own, the donor's at l = 0."""
    own = {s.sample_id: torch.tensor(at[-1]) for s, at in zip(samples, logits)}
    conflict = [s for s in samples if s.conflict]
    some = [p for kind in KINDS for p in build_pairs(conflict, kind, PairRules(max_pairs=pairs), seed=0)[0]]
    carried = 1 / (1 + np.exp(4 * (np.arange(LAYERS) - truth.ends)))
    carried[0], carried[-1] = 1, 0
    rows, readout = [], _readout(labels)
    further = [c for name in DISTURBANCES if controls for c in control_pairs(some, conflict, name, seed=0)]
    further += control_pairs([p for p in some if p.kind == "prosody"], samples, SAME_TEXT, most=50, seed=0)
    for pair in [*some, *further]:
        base = own[pair.recipient.sample_id]
        donor = torch.zeros_like(base) if pair.silent else own[pair.donor.sample_id]
        patched = Patched(base + torch.tensor(carried)[:, None] * (donor - base), "splice", 0.0, 0.0, "", base)
        answer = readout.answer(donor)
        rows += pair_rows(pair, patched, pred_donor=answer, readout=readout, layers=range(LAYERS), reach=LAYERS)
    return pd.DataFrame(rows)


def _record(folder: Path, experiment: str, rows: pd.DataFrame, labels: list[str], name: str) -> dict[str, Any]:
    identity: dict[str, Any] = {
        "model": name,
        "model_files": None,
        "revision": None,
        "data": str(folder / "clips" / "manifest.csv"),
        "data_files": "0",
        "prompt": "{audio}How?",
        "labels": labels,
        "words": labels,
        "system": None,
        "limit": None,
        "seed": 0,
        "code": {"a.py": "0"},
        "versions": {"torch": "2.13.0"},
        "tokens": "0",
        "engine": "splice" if experiment == "patching" else None,
        "device": "cpu",
        "dtype": "float32",
    }
    counts: dict[str, Any] = {"clips": int(rows.iloc[:, 0].nunique()), "dropped": {"over --limit": 0}}
    if experiment == "patching":
        identity |= {
            "intervention": "span",
            "kinds": list(KINDS),
            "rules": {"max_pairs": 120, "same_text": None},
            "pool": "conflict",
            "align": "splice",
            "controls": False,
        }
        counts["clips"] = int(rows.recipient_id.nunique())
        counts["pairs"] = {k: {"kept": 1, "dropped": {}, "shared": "speaker"} for k in KINDS}
        counts["controls"] = {"row 0 - donor, all pairs": 0.0, "row L - recipient, all pairs": 0.0}
    else:
        conflict = rows.semantic_label != rows.prosody_label
        counts |= {"clips": int(rows[conflict].sample_id.nunique()), "congruent clips": int(rows[~conflict].sample_id.nunique())}
    patched = ("splice - rerun", "A patched with A - A", "row L - recipient") if experiment == "patching" else ()
    checks: dict[str, Any] = dict.fromkeys(("lens row L - model", *patched), 0.0)
    return {
        "identity": identity,
        "finished": True,
        "commit": "0",
        "prompt_name": "speaker",
        "command": f"python {EXPERIMENTS[experiment]}/run.py --data 'a b.csv' --x '`|'",
        "prompt_text": "{audio}How?",
        "label_tokens": dict(zip(labels, labels)),
        "model_class": "Planted",
        "blocks": LAYERS - 1,
        "engine": identity["engine"],
        "self_check": checks | {"tolerance": 0.001},
        "warnings": [],
        "counts": counts,
        "seconds": 1.0,
    }


def change_record(run: Path, to: Path | None = None, **changes: Any) -> None:
    """Change fields of a run.json, or of its copy in the folder `to`; "identity__model" names a field of a field."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for name, value in changes.items():
        place, *inside = name.split("__")
        if inside:
            record[place][inside[0]] = value
        else:
            record[place] = value
    write_record(to or run, record)


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Write an empty picture in place of every figure: drawing takes most of the time of a report."""

    def save(_: object, path: Path) -> None:
        if claim(path).suffix == ".svg":
            path.write_text('<svg viewBox="0 0 4 4" xmlns="http://www.w3.org/2000/svg"/>')
        else:
            Image.new("1", (4, 4)).save(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "save", save)
        yield


def build_report(study: Path, out: Path, *more: str, audio: bool = False, drawn: bool = False) -> tuple[str, str]:
    """Build the report of a study, without `audio` and with empty figures; return its Markdown in English and Chinese.

    "" where only the other was asked for. With real figures where they are `drawn`.
    """
    options = ["--lens", str(study / "lens"), "--patching", str(study / "patching"), "--out", str(out), *more]
    with nullcontext() if drawn else nothing_drawn():
        report.build.main(options if audio else [*options, "--no-audio"])
    english, chinese = (f.read_text(encoding="utf-8") if f.exists() else "" for f in (out / "report.md", out / "report.zh.md"))
    return english, chinese
