"""Read finished runs, group those that belong together, report problems."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from common.errors import InputError
from common.run.record import alike, shown
from common.run.run_folder import finished_run, read_record, read_table

EXPERIMENTS = {"lens": "logit_lens", "patching": "activation_patching"}
ROWS = {"lens": "lens.csv", "patching": "patches.csv"}
TABLES = {"lens": ("layers", "congruent", "labels", "crossover"), "patching": ("layers", "effects", "summary")}
# Tables that a run has where it was told to, or its clips allow.
ASKED_FOR = {"lens": ("generated", "probe", "decoding", "stages"), "patching": ("beyond_label", "free_text")}
BESIDE = {  # folder: input, lens
    "transcript": ("transcript", "logit"),
    "described": ("described", "logit"),
    "tuned": ("audio", "tuned"),
    "level": ("audio", "logit"),
}
# What two runs must have in common to tell of the same thing.
ANSWER = ("answer_form", "answer_prefix", "thinking")
SHARED = (
    "model",
    "model_files",
    "revision",
    "data",
    "data_files",
    "prompt",
    "labels",
    "words",
    "system",
    "device",
    "dtype",
    *ANSWER,
)


@dataclass(frozen=True)
class Trouble:
    """Something that a reader must know before any number; `name` says what, `values` fill in its sentence."""

    name: str
    values: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Outputs:
    """A finished run: `experiment` is "lens" or "patching", `record` its run.json, `rows` and `tables` its CSVs."""

    experiment: str
    folder: Path
    record: dict[str, Any]
    rows: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    prompts: pd.DataFrame | None = None

    @property
    def identity(self) -> dict[str, Any]:
        return dict(self.record["identity"])


@dataclass(frozen=True)
class Study:
    """What was asked of one model about one set of clips: a lens run, a patching run, or both; and the runs `beside` them.

    These lie in folders below: of the same clips as text ("transcript", "described"), through a "tuned" lens, of subspaces.
    """

    lens: Outputs | None
    patching: Outputs | None
    beside: dict[str, Outputs] = field(default_factory=dict)

    @property
    def runs(self) -> list[Outputs]:
        return [run for run in (self.lens, self.patching) if run is not None]

    @property
    def first(self) -> Outputs:
        return self.runs[0]


def read_studies(lens: Iterable[Path], patching: Iterable[Path]) -> tuple[list[Study], list[Trouble]]:
    """Return the finished runs of the folders, those of the same model, prompt, clips and labels together, and what is wrong.

    Raises InputError where no folder has a finished run.
    """
    troubles: list[Trouble] = []
    found: dict[str, list[Outputs]] = {"lens": [], "patching": []}
    for experiment, folders in (("lens", lens), ("patching", patching)):
        for folder in folders:
            for place in _runs_in(folder):
                run = read_outputs(experiment, place)
                if isinstance(run, Trouble):
                    troubles.append(run)
                else:
                    found[experiment].append(run)
                    troubles += unwell(run)
    if not any(found.values()):
        first = troubles[0]
        raise InputError(f"{first.values['folder']}: no finished run to report on ({first.values['why']})")
    studies, missing = _together(found["lens"], found["patching"])
    beside = [_read_beside(study) for study in studies]
    troubles = missing + troubles + [trouble for _, some in beside for trouble in some]
    return [replace(study, beside=runs) for study, (runs, _) in zip(studies, beside)], joined(troubles)


def _read_beside(study: Study) -> tuple[dict[str, Outputs], list[Trouble]]:
    """Return the runs in the folders below a study's, and what is wrong: a run of something else is left out."""
    runs: dict[str, Outputs] = {}
    troubles: list[Trouble] = []
    for above in study.runs:
        for place in sorted(p.parent for p in above.folder.glob("*/run.json")):
            if not (place.name in BESIDE if above.experiment == "lens" else _edit(place) == "exchange"):
                continue
            run = read_outputs(above.experiment, place, beside=True)
            if isinstance(run, Trouble):
                troubles.append(run)
            elif unlike(run, above):
                troubles.append(mixed_up(run, above))
            else:
                runs[place.name] = run
                troubles += unwell(run)
    return runs, troubles


def _edit(folder: Path) -> str | None:
    """Return what the patching run of a folder did to the states; None where it holds no such run."""
    try:
        identity = read_record(folder)["identity"]
    except InputError:
        return None
    return identity.get("intervention")


def joined(troubles: list[Trouble]) -> list[Trouble]:
    """Return the troubles, those that differ in the folder alone as one."""
    found: dict[tuple[tuple[str, str], ...], list[Trouble]] = {}
    for trouble in troubles:
        told = {k: v for k, v in trouble.values.items() if k not in ("folder", "experiment")}
        found.setdefault((("name", trouble.name), *sorted(told.items())), []).append(trouble)
    folders = [", ".join(dict.fromkeys(t.values["folder"] for t in alike)) for alike in found.values()]
    return [Trouble(alike[0].name, alike[0].values | {"folder": f}) for alike, f in zip(found.values(), folders)]


def _runs_in(folder: Path) -> list[Path]:
    """Return a run's folder, or the folders of its variants where it has these alone (`--prompts all`)."""
    variants = sorted(folder.glob("prompts/*/run.json"), key=lambda p: (len(p.parent.name), p.parent.name))
    return [folder] if (folder / "run.json").exists() or not variants else [v.parent for v in variants]


def read_outputs(experiment: str, folder: Path, *, beside: bool = False) -> Outputs | Trouble:
    """Return a finished run with its tables, or what keeps it out of the report; `beside`: of a folder below another run's."""
    told = {"folder": shown(folder), "experiment": experiment, "script": f"{EXPERIMENTS[experiment]}/run.py"}
    given, lens = BESIDE.get(folder.name, ("audio", "logit")) if beside else ("audio", None)

    def why(error: InputError) -> dict[str, str]:
        return told | {"why": str(error).replace(str(folder), shown(folder))}

    try:
        record = read_record(folder)
    except InputError as error:
        return Trouble("missing", why(error))
    identity = record["identity"]
    if ("intervention" in identity) != (experiment == "patching"):
        return Trouble("other experiment", told | {"why": f"its run is of the other experiment, not of {told['script']}"})
    if (form := identity.get("input", "audio")) != given:
        return Trouble("other input", told | {"why": f"its clips were given as {form}, not as {given}"})
    if beside and experiment == "lens" and (through := identity.get("lens", "logit")) != lens:
        return Trouble("other input", told | {"why": f"it was read by a {through} lens, not by a {lens} lens"})
    if beside and folder.name == "level" and identity.get("level") is None:
        return Trouble("other input", told | {"why": "its clips were not brought to one level"})
    if not beside and identity.get("intervention", "span") != "span":
        why_not = f"its run is one of --intervention {identity['intervention']}; a report shows it below a patching run's folder"
        return Trouble("other experiment", told | {"why": why_not})
    if not record["finished"]:
        return Trouble("partial", told | {"why": "its run has not finished; the same command goes on with it"})
    try:
        record, rows = finished_run(folder, ROWS[experiment])
        tables = {name: read_table(folder, name) for name in TABLES[experiment]}
        tables |= {name: read_table(folder, name) for name in ASKED_FOR[experiment] if (folder / f"{name}.csv").exists()}
        above = next((p for p in (folder, folder.parent.parent) if (p / "prompts.csv").exists()), None)
        return Outputs(experiment, folder, record, rows, tables, read_table(above, "prompts") if above else None)
    except InputError as error:
        return Trouble("tables", why(error))


def checks_of(run: Outputs) -> list[str]:
    """Return the self-checks that a run must have passed."""
    if (edit := run.identity.get("intervention", "span")) != "span":
        return [f"{edit} by {run.record['engine']} - rerun"]
    patched = [f"{run.record['engine']} - rerun", "A patched with A - A", "row L - recipient"]
    return ["lens row L - model", *(patched if run.experiment == "patching" else [])]


def unwell(run: Outputs) -> list[Trouble]:
    """Return what a finished run itself warns of: failed or missing checks, its own warnings."""
    told = {"folder": shown(run.folder), "experiment": run.experiment}
    measured = run.record.get("self_check", {})
    tolerance = measured.get("tolerance")
    wanted = checks_of(run)
    troubles = [Trouble("check missing", told | {"check": c}) for c in ("tolerance", *wanted) if not _number(measured.get(c))]
    if _number(tolerance):
        off = [c for c in wanted if _number(measured.get(c)) and not measured[c] <= tolerance]
        values = [{"check": c, "value": f"{measured[c]:.1e}", "tolerance": f"{tolerance:.1e}"} for c in off]
        troubles += [Trouble("check failed", told | v) for v in values]
    return troubles + [Trouble("warning", told | {"text": str(text)}) for text in run.record.get("warnings", [])]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _together(lens: list[Outputs], patching: list[Outputs]) -> tuple[list[Study], list[Trouble]]:
    """Return the runs as studies: a lens run with the first patching run of the same thing, the others alone."""
    left, studies, troubles = list(patching), [], []
    for run in lens:
        partner = next((p for p in left if not unlike(run, p)), None)
        if partner is not None:
            left.remove(partner)
        studies.append(Study(run, partner))
    known = {id(s.patching) for s in studies}
    for run in left:
        of_same = next((s for s in studies if s.lens and not unlike(s.lens, run)), None)
        if of_same is None and lens:
            troubles.append(mixed_up(run, lens[0]))
    studies += [Study(None, run) for run in left if id(run) not in known]
    return studies, troubles


def mixed_up(run: Outputs, other: Outputs) -> Trouble:
    """Return the trouble that a run is not of the same thing as another one."""
    told = {"folder": shown(run.folder), "other": shown(other.folder), "differs": "; ".join(unlike(other, run))}
    return Trouble("mixed up", told)


def unlike(one: Outputs, other: Outputs) -> list[str]:
    """Return in what two runs differ of what they must have in common, each as "name (this, that)"."""
    differing = [name for name in SHARED if not alike(name, one.identity, other.identity)]
    return [f"{name} ({one.identity.get(name)}, {other.identity.get(name)})" for name in differing]


def names_of(studies: list[Study]) -> list[str]:
    """Return a short name for each study: whatever is not the same in all, else its folder."""
    told = [_told(study.first) for study in studies]
    telling = [i for i in range(len(told[0])) if len({t[i] for t in told}) > 1]
    names = [", ".join(filter(None, (t[i] for i in telling))) for t in told]
    if len(set(names)) < len(names):
        names = [", ".join(filter(None, (name, "/".join(s.first.folder.parts[-2:])))) for name, s in zip(names, studies)]
    return names if len(set(names)) == len(names) else [f"{name} ({i})" for i, name in enumerate(names, 1)]


def _told(run: Outputs) -> tuple[str, ...]:
    identity = run.identity
    align = f"--align {identity['align']}" if identity.get("align", "splice") != "splice" else ""
    data = "/".join(Path(str(identity["data"])).parts[-2:])
    return (
        Path(str(identity["model"])).name,
        Path(str(run.record["prompt_name"])).name,
        data,
        ", ".join(identity["labels"]),
        align,
    )
