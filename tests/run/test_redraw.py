"""Rows are dear, tables are cheap: a finished run is drawn again without a model, and without torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import claim
from common.run.command_line import main_of
from tests.helpers.runs import FEW, ROOT, ROWS, SCRIPTS


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the code that a test may change, and a torch that cannot be imported."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("common", *ROWS, "report"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "outputs"))
    for name in ("torch", "transformers", "accelerate"):
        (folder / "no_torch" / name).mkdir(parents=True)
        (folder / "no_torch" / name / "__init__.py").write_text(f"raise AssertionError('{name} was imported')\n")
    return folder


def start(workshop: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(workshop / "no_torch")}
    command = [sys.executable, str(workshop / name / "run.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", ROWS)
def test_a_finished_run_outlives_changes_of_what_draws_it(
    name: str, workshop: Path, finished: dict[str, Path], tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished[name], tmp_path / "out")
    options = ["--model", str(tiny_folder), "--data", str(manifest), "--device", "cpu", *FEW[name], "--out", str(out)]
    rows, tables = out / ROWS[name], (out / "layers.csv").read_text()
    written = rows.stat().st_mtime_ns
    for changed in ("common/stats/units.py", "common/plotting.py", f"{name}/plots.py", f"{name}/tables.py"):
        with open(workshop / changed, "a") as file:
            file.write("\nADDED = 1\n")
    with open(workshop / "common/patching/splice.py", "a") as file:
        file.write("\n# a remark\n")
    (out / "layers.csv").unlink()
    drawn = start(workshop, name, *(options if name == "logit_lens" else ["--redraw", "--out", str(out)]))
    assert drawn.returncode == 0, drawn.stderr
    assert (out / "layers.csv").read_text() == tables and rows.stat().st_mtime_ns == written


def test_a_change_of_what_makes_rows_is_refused(
    workshop: Path, finished: dict[str, Path], tiny_folder: Path, manifest: Path
) -> None:
    engine, out = workshop / "common/patching/splice.py", finished["activation_patching"]
    before = engine.read_text()
    engine.write_text(before + "\nADDED = 1\n")
    options = ["--model", str(tiny_folder), "--data", str(manifest), "--device", "cpu", *FEW["activation_patching"]]
    refused = start(workshop, "activation_patching", *options, "--out", str(out))
    engine.write_text(before)
    assert refused.returncode == 2 and "other settings: code: common/patching/splice.py; give another --out" in refused.stderr


def test_only_a_finished_run_is_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for line in (f"error: {tmp_path}/run.json: cannot be read", "its run has not finished"):
        with pytest.raises(SystemExit, match="2"):
            main_of(lambda _: SCRIPTS["logit_lens"](["--redraw", "--out", str(tmp_path)]))
        told = capsys.readouterr().err
        assert line in told and told.count("\n") == 1
        if not (tmp_path / "run.json").exists():
            claim(tmp_path / "run.json").write_text('{"identity": {}, "finished": false}')
