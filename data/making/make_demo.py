"""Make the demo clips and their manifest: `python data/making/make_demo.py` (under a minute).

Needs data/making/requirements-demo.txt. The same samples come out of every run.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from common.clips.manifest import COLUMNS, LABELS  # noqa: E402
from common.files import take  # noqa: E402
from common.paths import given_path  # noqa: E402
from data.making.sentences import DEMO  # noqa: E402
from data.making.speech import PROSODIES, RATE, Voice, render, speak  # noqa: E402

VOICES = (Voice("joe", pitch=1.0, tract=1.0), Voice("joe_high", pitch=1.8, tract=1.14))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=given_path, default=ROOT / "data" / "demo", help="folder for the clips and manifest.csv")
    out = parser.parse_args().out
    if out != parser.get_default("out"):
        take(out)
    rows = []
    texts = [(f"{label}_{i:02d}", text, label) for label in LABELS for i, text in enumerate(DEMO[label])]
    for seed, (text_id, text, semantic_label) in enumerate(tqdm(texts, desc="texts")):
        analysis = speak(text)
        for voice in VOICES:
            for prosody_label in LABELS:
                sample_id = f"{text_id}_{prosody_label}_{voice.name}"
                wave = render(analysis, voice, PROSODIES[prosody_label], seed=seed)
                if np.abs(wave).max() >= 1:
                    raise ValueError(f"{sample_id}: a peak of {np.abs(wave).max():.2f} would clip; lower NEUTRAL_DBFS")
                soundfile.write(out / f"{sample_id}.flac", wave, RATE, subtype="PCM_16")
                labels = semantic_label, prosody_label
                rows.append((sample_id, f"{sample_id}.flac", text, text_id, *labels, voice.name, "en", "piper+world"))
    with open(out / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
