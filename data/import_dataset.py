"""Write the manifest of a public data set: `python data/import_dataset.py RAVDESS ~/data/RAVDESS`.

Nothing is copied or changed. Labels are never guessed: what the set does not label takes --semantic-labels, what is unknown is an
error, and what the run does not ask for is left out and counted.
"""

import argparse
import csv
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if ROOT / "common" not in {Path(p).resolve() for p in getattr(sys.modules.get("common"), "__path__", ())}:
    sys.modules.pop("common", None)  # a notebook's own, of the same name
from common.environment import patient_streams, prepare  # noqa: E402

prepare(__file__)

from common.clips.csvfile import csv_rows  # noqa: E402
from common.clips.manifest import COLUMNS, LABELS  # noqa: E402
from common.errors import InputError  # noqa: E402
from common.files import in_one_step  # noqa: E402
from common.paths import given_path  # noqa: E402
from data.clip_files import Row, clips_in, same_clip  # noqa: E402
from data.datasets import DATASETS, WORDS, Dataset, Fields, Made, made, tidy  # noqa: E402


@dataclass(frozen=True)
class Imported:
    """The rows of a manifest, how many clips were left out and why, and the texts that no one has labelled yet."""

    rows: list[Row]
    dropped: Counter[str]
    unlabelled: dict[str, str]


def import_dataset(
    dataset: Dataset, folder: Path, *, labels: Sequence[str], semantic: Mapping[str, str] | None, rename: Mapping[str, str]
) -> Imported:
    """Return the manifest rows of a data set, `audio` relative to `folder`.

    `semantic`: the label of each text_id, instead of the set's own. `rename`: labels to count as another one. Raises InputError
    for a folder without clips of the set, an unknown string where a label should be, and two clips with the same id.
    """
    dropped: Counter[str] = Counter()
    unlabelled: dict[str, str] = {}
    rows: dict[str, Row] = {}
    for path, fields in clips_in(dataset, folder, dropped):
        if strange := next((f"{k} {fields[k] or 'not given'}" for k, v in dataset.keep.items() if fields[k] not in v), None):
            dropped[strange] += 1
            continue
        row = {
            "sample_id": tidy(made(dataset.sample_id, fields)).replace("|", "_"),
            "audio": path.as_posix(),
            "text": tidy(made(dataset.text, fields)),
            "text_id": tidy(made(dataset.text_id, fields)),
            "prosody_label": label(dataset, "prosody", fields, rename),
            "speaker": tidy(made(dataset.speaker, fields)),
            "language": made(dataset.language, fields),
            "source": made(dataset.source, fields),
        }
        if not row["text_id"]:
            dropped["without a text"] += 1
        elif row["prosody_label"] not in labels:
            dropped[f"voice {row['prosody_label'] or 'not labelled'}"] += 1
        else:
            text_id = row["text_id"]
            given = label(dataset, "semantic", fields, rename) if semantic is None else semantic.get(text_id, "")
            row["semantic_label"] = given
            if not given:
                unlabelled[text_id] = row["text"]
            if row["semantic_label"] not in labels:
                dropped[f"words {row['semantic_label'] or 'not labelled'}"] += 1
            elif not again(rows.get(row["sample_id"]), row, folder, dropped):
                rows[row["sample_id"]] = row
    kept = list(rows.values())
    return Imported(once(kept, folder, dropped) if dataset.same_audio else kept, dropped, unlabelled)


def label(dataset: Dataset, kind: str, fields: Fields, rename: Mapping[str, str]) -> str:
    """Return a clip's label of one kind, "" where it has none. Raises InputError for a string that the set should not have."""
    template: Made = getattr(dataset, kind)
    if isinstance(template, str) and "{" not in template:
        return rename.get(template, template)
    code = made(template, fields).strip()
    name = dataset.labels.get(code, dataset.labels.get(code.lower(), code if code in rename else ""))
    if code and not name:
        where = fields.get("file of the row") or f"clip {fields['file']}"
        known = ", ".join(sorted(dataset.labels))
        raise InputError(
            f"{where}, field {template}: unknown label {code!r}; known: {known}; --rename '{code}=LABEL' makes it known"
        )
    return rename.get(name, name)


def again(first: Row | None, row: Row, folder: Path, dropped: Counter[str]) -> bool:
    """Return whether a clip is there already under its id; count it. Raises InputError where the two are not the same clip."""
    if first is None:
        return False
    if any(first[c] != row[c] for c in row if c != "audio"):
        raise InputError(
            f"{folder}: {first['audio']} and {row['audio']} have the id {row['sample_id']!r}, and other labels or texts"
        )
    same_clip(folder, Path(first["audio"]), Path(row["audio"]), row["sample_id"], dropped)
    return True


def once(rows: list[Row], folder: Path, dropped: Counter[str]) -> list[Row]:
    """Return one row for each recording; none where the same recording is labelled in two ways."""
    of_audio: dict[str, list[Row]] = {}
    for row in rows:
        of_audio.setdefault(hashlib.sha256((folder / row["audio"]).read_bytes()).hexdigest(), []).append(row)
    kept = []
    for group in of_audio.values():
        agree = len({(r["semantic_label"], r["prosody_label"]) for r in group}) == 1
        dropped["the same audio under another id" if agree else "the same audio labelled in two ways"] += len(group) - agree
        kept += group[:agree]
    return kept


def read_semantic_labels(path: Path, rename: Mapping[str, str], labels: Sequence[str]) -> dict[str, str]:
    """Return the label of each text_id of a CSV `text_id,semantic_label`; "" where none is filled in."""
    known: dict[str, str] = {}
    for number, row in csv_rows(path, ("text_id", "semantic_label"), what="file of semantic labels"):
        text_id, name = tidy(row["text_id"]), row["semantic_label"].strip()
        name = rename.get(name, name)
        if name and name not in labels:
            name = WORDS.get(name.lower(), "")
            name = rename.get(name, name)
            if not name:
                allowed = ", ".join(dict.fromkeys((*labels, *sorted(set(WORDS.values())))))
                raise InputError(
                    f"{path}, row {number}, column semantic_label: unknown label {row['semantic_label']!r}; allowed: {allowed}"
                )
        if known.setdefault(text_id, name) != name:
            raise InputError(f"{path}, row {number}: {text_id!r} has another label above, {known[text_id]!r}")
    return known


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Row], *, overwrite: bool) -> None:
    """Write a CSV. Raises InputError where something is there: with `overwrite` anything but a file with the same header."""
    if path.exists() or path.is_symlink():
        if not overwrite:
            raise InputError(f"{path} is there already; give another --out, or --overwrite")
        if not _is_of(path, columns):
            raise InputError(f"{path}: is no CSV of {', '.join(columns)}, so --overwrite leaves it as it is; give another name")
    try:
        with in_one_step(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: {error.object!r} is not the name of a file in UTF-8") from None


def _is_of(path: Path, columns: Sequence[str]) -> bool:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file), []) == list(columns)
    except (OSError, ValueError, csv.Error):
        return False


def summary(imported: Imported, labels: Sequence[str]) -> str:
    """Return how many clips there are of each pair of labels, and what was left out."""
    counts = Counter((r["semantic_label"], r["prosody_label"]) for r in imported.rows)
    width = max(map(len, (*labels, "words \\ voice"))) + 2
    lines = ["".join(f"{cell:>{width}}" for cell in ("words \\ voice", *labels))]
    for words in labels:
        if any(counts[words, voice] for voice in labels):
            lines.append("".join(f"{cell:>{width}}" for cell in (words, *(counts[words, voice] for voice in labels))))
    lines += [f"left out: {n} {reason}" for reason, n in imported.dropped.most_common() if n]
    return "\n".join(lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    names = {name.lower(): name for name in DATASETS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("name", type=lambda text: names.get(text.lower(), text), choices=DATASETS, metavar="NAME", help=", ".join(DATASETS))
    add("folder", type=given_path, metavar="FOLDER", help="where the data set lies, or a part of it")
    add("--out", type=given_path, default=Path("manifest.csv"), help="the manifest to write (default: manifest.csv, here)")
    add("--labels", nargs="+", default=LABELS, metavar="LABEL", help=f"labels to keep (default: {' '.join(LABELS)})")
    add(
        "--semantic-labels",
        type=given_path,
        metavar="CSV",
        help="text_id,semantic_label: what the words say, where the set does not tell",
    )
    add(
        "--texts",
        type=given_path,
        metavar="CSV",
        help="write the texts whose words are not labelled, to be filled in for --semantic-labels",
    )
    add("--rename", nargs="+", default=[], metavar="A=B", help="count label A of the set as B, for one calm=neutral")
    add("--overwrite", action="store_true", help="write over a manifest that is there")
    args = parser.parse_args(argv)
    if strange := next((r for r in args.rename if r.count("=") != 1 or not all(r.split("="))), None):
        parser.error(f"argument --rename: {strange!r} is not of the form A=B")
    return args


def main(argv: list[str] | None = None) -> None:
    try:
        print(run(argv))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(argv: list[str] | None) -> str:
    """Do what the command line asks; return what is to be said."""
    args = parse(argv)
    dataset, rename = DATASETS[args.name], dict(r.split("=") for r in args.rename)
    semantic = read_semantic_labels(args.semantic_labels, rename, args.labels) if args.semantic_labels else None
    imported = import_dataset(dataset, args.folder, labels=args.labels, semantic=semantic, rename=rename)
    unlabelled = [{"text_id": i, "text": text, "semantic_label": ""} for i, text in imported.unlabelled.items()]
    if args.texts:
        write_csv(args.texts, ("text_id", "text", "semantic_label"), unlabelled, overwrite=args.overwrite)
        return f"{args.texts}: {len(unlabelled)} texts of {args.name}, whose semantic_label is to be filled in"
    if unlabelled and semantic is None and dataset.semantic == "":
        raise InputError(
            f"the words of {args.name} are not labelled: --semantic-labels takes a CSV with text_id,semantic_label; --texts FILE "
            f"writes its {len(unlabelled)} texts to fill in"
        )
    if not imported.rows:
        raise InputError(f"no clip of {args.name} in {args.folder} is left; {summary(imported, args.labels)}".replace("\n", "; "))
    base = Path(os.path.relpath(args.folder.resolve(), args.out.resolve().parent))
    rows = [{**row, "audio": (base / row["audio"]).as_posix(), "source": row["source"] or args.name} for row in imported.rows]
    write_csv(args.out, COLUMNS, rows, overwrite=args.overwrite)
    note = [f"note: {dataset.note}"] if dataset.note else []
    return "\n".join([f"{args.out}: {len(rows)} clips of {args.name}", summary(imported, args.labels), *note])


if __name__ == "__main__":
    patient_streams()
    main()
