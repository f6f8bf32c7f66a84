"""Rows are dear, tables are cheap: a finished run is drawn again without a model, and without torch."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.files import claim

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"logit_lens": "lens.csv", "activation_patching": "patches.csv"}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the code that a test may change, and a torch that cannot be imported."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("common", *SCRIPTS, "report"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "outputs"))
    for name in ("torch", "transformers", "accelerate"):
        (folder / "no_torch" / name).mkdir(parents=True)
        (folder / "no_torch" / name / "__init__.py").write_text(f"raise AssertionError('{name} was imported')\n")
    return folder


def start(workshop: Path, name: str, *options: str, torch: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "" if torch else str(workshop / "no_torch")}
    command = [sys.executable, str(workshop / name / "run.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_finished_run_outlives_changes_of_what_draws_it(
    name: str, workshop: Path, tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    options = ["--model", str(tiny_folder), "--data", str(manifest), "--limit", "12", "--out", str(tmp_path)]
    first = start(workshop, name, *options, torch=True)
    assert first.returncode == 0, first.stderr
    rows, tables = tmp_path / SCRIPTS[name], (tmp_path / "layers.csv").read_text()
    written = rows.stat().st_mtime_ns
    for changed in ("common/stats/units.py", "common/plotting.py", f"{name}/plots.py", f"{name}/tables.py"):
        with open(workshop / changed, "a") as file:
            file.write("\nADDED = 1\n")
    with open(workshop / "common/patching/splice.py", "a") as file:
        file.write("\n# a remark\n")
    for again in (options, ["--redraw", "--out", str(tmp_path)]):
        (tmp_path / "layers.csv").unlink()
        began = time.monotonic()
        drawn = start(workshop, name, *again, torch=False)
        assert drawn.returncode == 0, drawn.stderr
        assert time.monotonic() - began < 30 and drawn.stdout in first.stdout
        assert (tmp_path / "layers.csv").read_text() == tables and rows.stat().st_mtime_ns == written

    engine = workshop / "common/patching/splice.py"
    before = engine.read_text()
    engine.write_text(before + "\nADDED = 1\n")
    refused = start(workshop, name, *options, torch=False)
    engine.write_text(before)
    assert refused.returncode == 2 and "other settings: code: common/patching/splice.py; give another --out" in refused.stderr


def test_only_a_finished_run_is_drawn_again(workshop: Path, tmp_path: Path) -> None:
    nothing = start(workshop, "logit_lens", "--redraw", "--out", str(tmp_path), torch=False)
    assert nothing.returncode == 2 and nothing.stderr.startswith(f"error: {tmp_path}/run.json: cannot be read")
    claim(tmp_path / "run.json").write_text('{"identity": {}, "finished": false}')
    partly = start(workshop, "logit_lens", "--redraw", "--out", str(tmp_path), torch=False)
    assert partly.returncode == 2 and "its run has not finished" in partly.stderr and partly.stderr.count("\n") == 1
