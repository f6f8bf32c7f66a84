"""Both scripts as a user starts them, in this process and on few clips."""

import json
from pathlib import Path

import pandas as pd

import activation_patching.run
import logit_lens.run

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"logit_lens": logit_lens.run.main, "activation_patching": activation_patching.run.main}
ROWS = {"logit_lens": "lens.csv", "activation_patching": "patches.csv"}
FEW = {"logit_lens": ("--limit", "12"), "activation_patching": ("--max-pairs", "20")}


def start(name: str, model: Path, data: Path, out: Path, *more: str) -> None:
    SCRIPTS[name](["--model", str(model), "--data", str(data), "--out", str(out), "--device", "cpu", *FEW[name], *more])


def rows_of(out: Path, name: str = "activation_patching") -> pd.DataFrame:
    return pd.read_csv(out / ROWS[name], dtype={"text_id": str})


def interrupt(out: Path, name: str, *, at: int | None = None) -> None:
    """Cut the rows of a finished run, of a script or in a file, at a character or in the middle, as a kill would leave them."""
    rows, record = out / ROWS.get(name, name), out / "run.json"
    text = rows.read_text()
    rows.write_text(text[: len(text) // 2 if at is None else at])
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
