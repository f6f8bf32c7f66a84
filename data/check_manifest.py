"""Check every row and clip of a manifest: `python data/check_manifest.py manifest.csv`.

Labels of words and voice, speakers, texts, lengths, pairs under each rule; what is wrong, with file and row; what contradicts
itself; and how well length, level, speaker or kind of file alone tell a label. Exit code 1 where a row or a clip cannot be used.
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if ROOT / "common" not in {Path(p).resolve() for p in getattr(sys.modules.get("common"), "__path__", ())}:
    sys.modules.pop("common", None)  # a notebook's own, of the same name
from common.environment import patient_streams, prepare  # noqa: E402

prepare(__file__)

from common.clips.audio import BadClip, read_clip  # noqa: E402
from common.clips.csvfile import csv_rows  # noqa: E402
from common.clips.manifest import COLUMNS, LABELS, read_sample  # noqa: E402
from common.errors import InputError  # noqa: E402
from common.paths import given_path  # noqa: E402
from common.run.command_line import SEEDS, whole_number  # noqa: E402
from data.manifest_checks import Heard, Manifest, Section, findings  # noqa: E402
from data.manifest_page import check_page, write_page  # noqa: E402

SHOWN = 20  # of what is wrong, on the terminal


def read_all(path: Path, labels: Sequence[str] | None, *, trim: bool) -> Manifest:
    """Read every row and open every clip; `labels` as a run takes them. Raises InputError for what is no manifest at all."""
    samples, wrong, first_row, rows, left_out = [], [], dict[str, int](), 0, Counter[str]()
    for number, row in csv_rows(path, COLUMNS, what="manifest"):
        rows += 1
        try:
            sample = read_sample(path, number, row, first_row, LABELS if labels is None else None)
        except InputError as error:
            wrong.append(str(error))
            continue
        strange = [x for x in (sample.semantic_label, sample.prosody_label) if labels is not None and x not in labels]
        if strange:
            left_out[strange[0]] += 1
        else:
            samples.append((number, sample))
    clips = []
    for number, sample in tqdm(samples, desc="opening the clips", leave=False):
        try:
            clip = read_clip(sample.audio, trim=trim)
        except BadClip as error:
            wrong.append(f"{path}, row {number}, column audio: {error}")
            continue
        digest = hashlib.sha256(clip.wave.tobytes()).hexdigest()
        clips.append((sample, Heard(clip.seconds, clip.level, clip.rate, clip.channels, clip.format, digest)))
    return Manifest(path, tuple(labels or LABELS), rows, left_out, clips, wrong)


def as_text(sections: Sequence[Section]) -> str:
    """Return the findings for a terminal."""
    parts = []
    for section in sections:
        table = [section.header, *section.rows] if section.header else []
        widths = [max(len(row[i]) for row in table) for i in range(len(section.header))]
        lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        more = len(section.lines) - SHOWN
        lines += [f"  {line}" for line in section.lines[:SHOWN]] + ([f"  ... and {more} more"] if more > 0 else [])
        parts.append("\n".join([section.title, *(line for line in lines if line.strip())]))
    return "\n\n".join(parts)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("manifest", type=given_path, metavar="MANIFEST")
    add("--labels", nargs="+", metavar="LABEL", help=f"labels of the run (default: {' '.join(LABELS)}); others are left out")
    add("--trim", action="store_true", help="look at the clips without the silence at both ends")
    add("--permutations", type=whole_number(1, 100_000), default=200, metavar="N", help="of the labels, 1 to 100000 (200)")
    add("--seed", type=whole_number(0, SEEDS), default=0, metavar="N", help=f"of the permutations, 0 to {SEEDS} (0)")
    add("--html", type=given_path, metavar="FILE", help="write the same, with figures, as one page")
    args = parser.parse_args(argv)
    try:
        if args.html:
            check_page(args.html)
        manifest = read_all(args.manifest, args.labels, trim=args.trim)
        sections = findings(manifest, permutations=args.permutations, seed=args.seed)
        print(as_text(sections))
        if args.html:
            write_page(args.html, manifest, sections)
            print(f"\nwritten: {args.html}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(1 if manifest.wrong or not manifest.clips else 0)


if __name__ == "__main__":
    patient_streams()
    main()
