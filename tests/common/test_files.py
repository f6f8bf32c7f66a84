"""Nobody's file is touched: random files of others, in every output folder, survive every command byte for byte."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import activation_patching.run
import logit_lens.run
from common import files, lock
from common.clips.csvfile import read_table
from common.errors import InputError
from common.run import run_folder
from common.run.rows import part_names
from common.run.run_folder import Run, Work
from data import check_manifest, import_dataset
from data.assemble import assemble
from report import build
from tests.tiny_models.tiny import save_clips, save_tiny_model

WHOLE = os.environ.get("FUZZ") == "whole"
# Names that mean something to a run of this version or an earlier one, and names that only look so.
NAMES = (
    *("manifest.csv", "lens.csv", "layers.csv", "run.json", "files.json", "photo.png", "prompts.png", "states.npy", "curve.svg"),
    *(
        "lens.csv.partial",
        "ESD.zip.partial",
        "lens.part0000.csv",
        "lens.part0001.12.csv",
        "run.lock.old",
        "report.md",
        "Layers.csv",
    ),
    *(
        "run.lock.0123456789abcdef",
        "run.lock/0123456789abcdef",
        "run.lock/notes",
        "backup.partial/a.wav",
        "prompts/speaker/a.txt",
    ),
    *(".hidden", "run.lock.0123456789abcdef/0123456789abcdef", "figures/flip_rate_curve_semantic.png", "手.csv", "a b$.csv"),
)
foreign = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from((b"", b"mine\n", b"{}", b'{"files": ["photo.png"]}')), min_size=1
)


def put(folder: Path, drawn: dict[str, bytes]) -> dict[str, bytes]:
    """Write what can be written side by side; return it."""
    kept = {}
    for name, content in drawn.items():
        path = folder / name
        if path.exists() or any(p.is_file() for p in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        kept[name] = content
    return kept


def stands(folder: Path, kept: dict[str, bytes]) -> bool:
    return {name: (folder / name).read_bytes() if (folder / name).is_file() else None for name in kept} == kept


def a_run(out: Path, *, overwrite: bool, count: int = 3) -> None:
    """Make rows of a toy run in a folder, tables of them, and a figure, as the scripts do."""
    run = Run(out / "lens.csv", "sample_id", {"n": count})
    with lock.held(out):
        if not run_folder.is_finished(run, overwrite=overwrite):
            work = Work(
                lambda groups: ([{"sample_id": name, "layer": layer} for layer in (0, 1)] for (name,) in groups),
                [[str(i)] for i in range(count)],
                str,
                (0, 1),
            )
            run_folder.make_rows(run, work, overwrite=overwrite)
            run_folder.finish(run, {}, {}, began=0)
        run_folder.write_tables(out, {"layers": read_table(run.rows)})
        files.claim(out / "curve.svg").write_text("<svg/>")


@settings(
    max_examples=2000 if WHOLE else 25,
    deadline=None,
    derandomize=not WHOLE,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(before=foreign, later=foreign, ends=st.data())
def test_what_others_have_put_into_an_output_folder_stays(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, bytes], later: dict[str, bytes], ends: Any
) -> None:
    out = tmp_path_factory.mktemp("out")
    kept = put(out, before)
    for overwrite in (False, True):
        try:
            a_run(out, overwrite=overwrite)
        except InputError as error:
            assert "\n" not in str(error)
        assert stands(out, kept)
    out = tmp_path_factory.mktemp("ours")  # a run's folder, in which somebody puts files then
    a_run(out, overwrite=False)
    kept = put(out, later)
    for overwrite, count in ends.draw(st.permutations(((False, 3), (True, 3), (False, 4), (True, 4)))):
        try:
            a_run(out, overwrite=overwrite, count=count)
        except InputError as error:
            assert "\n" not in str(error)
        assert stands(out, kept)


def test_a_folder_with_files_of_others_is_refused_before_any_work(tmp_path: Path) -> None:
    kept = put(tmp_path, {"photo.png": b"1", "notes.csv": b"2", "a": b"3", "b": b"4", "c": b"5"})
    with pytest.raises(InputError, match=r"holds files that are not of this program \(a, b, c and 2 more\); give another --out"):
        a_run(tmp_path, overwrite=True)
    assert stands(tmp_path, kept) and {f.name for f in tmp_path.iterdir()} == set(kept)
    old = put(tmp_path / "old", {"run.json": b'{"identity": {}, "finished": true}', "lens.csv": b"", "layers.csv": b""})
    with pytest.raises(InputError, match="its run is of an earlier version, which kept no list of its files"):
        a_run(tmp_path / "old", overwrite=True)
    assert stands(tmp_path / "old", old)


@pytest.mark.parametrize("name", ["../photo.png", "/photo.png", "x/../../photo.png"])
def test_a_list_that_reaches_out_of_its_folder_is_none(name: str, tmp_path: Path) -> None:
    files.take(tmp_path / "out")
    record = json.loads((tmp_path / "out" / files.LIST).read_text())
    (tmp_path / "out" / files.LIST).write_text(json.dumps(record | {"files": [name]}))
    with pytest.raises(InputError, match="holds files that are not of this program"):
        files.check(tmp_path / "out")


def test_overwrite_leaves_what_is_not_on_the_list_and_a_moved_folder_is_itself(tmp_path: Path) -> None:
    a_run(tmp_path / "one", overwrite=False)
    (tmp_path / "one").rename(tmp_path / "two")
    kept = put(tmp_path / "two", {"notes.csv": b"mine", "photo.png": b"mine", "x.csv.partial": b"mine"})
    a_run(tmp_path / "two", overwrite=True, count=5)
    assert stands(tmp_path / "two", kept)
    assert {f.name for f in (tmp_path / "two").iterdir()} == {
        *kept,
        "run.json",
        "lens.csv",
        "layers.csv",
        "curve.svg",
        files.LIST,
    }


def test_the_parts_of_a_start_have_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.processes.count", lambda: 2)
    assert [p.name for p in part_names(tmp_path / "lens.csv", "ab12")] == ["lens.part0000.ab12.csv", "lens.part0001.ab12.csv"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user with clips, and files whose names mean something to a run."""
    folder = tmp_path_factory.mktemp("table")
    save_clips(folder, texts=1, speakers=("a",))
    put(
        folder, {"labels.csv": b"mine", "notes.csv": b"mine", "ESD.zip.partial": b"mine", "report.md": b"mine", "page.html": b"x"}
    )
    put(folder, {"backup.partial/a.wav": b"mine", "config.json": b"mine"})
    return folder


SCRIPTS: dict[str, Callable[[Path, list[str]], None]] = {
    "logit_lens": lambda t, more: logit_lens.run.main(["--data", f"{t}/manifest.csv", "--out", str(t), *more]),
    "activation_patching": lambda t, more: activation_patching.run.main(["--data", f"{t}/manifest.csv", "--out", str(t), *more]),
    "every prompt": lambda t, more: logit_lens.run.main(["--prompts", "all", "--out", str(t), *more]),
    "report": lambda t, more: build.main(["--out", str(t)]),
    "page": lambda t, more: check_manifest.main([f"{t}/manifest.csv", "--html", f"{t}/page.html"]),
    "importer": lambda t, more: import_dataset.write_csv(t / "notes.csv", ["a"], [], overwrite=bool(more)),
    "assemble": lambda t, more: assemble(t, t, t),
}


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_leaves_the_files_of_a_user_alone(
    script: str, overwrite: list[str], table: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {p: p.read_bytes() for p in table.rglob("*") if p.is_file()}
    with pytest.raises((InputError, SystemExit)) as stopped:
        SCRIPTS[script](table, overwrite)
    if isinstance(stopped.value, SystemExit):
        assert stopped.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
    assert {p: p.read_bytes() for p in table.rglob("*") if p.is_file()} == before


def test_a_run_of_the_script_keeps_what_was_put_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logit_lens.run, "plot_lens", lambda *_: [])  # most of the time
    model, data = save_tiny_model(tmp_path / "model"), save_clips(tmp_path / "clips", texts=2)
    options = ["--model", str(model), "--data", str(data), "--out", str(tmp_path / "out"), "--limit", "4"]
    logit_lens.run.main(options)
    mine = {"notes.csv": b"mine", "photo.png": b"mine", "x.svg": b"mine", "old.npy": b"mine", "a.partial": b"mine"}
    kept = put(tmp_path / "out", mine)
    logit_lens.run.main([*options, "--seed", "1", "--overwrite"])
    logit_lens.run.main(["--redraw", "--out", str(tmp_path / "out")])
    assert stands(tmp_path / "out", kept)
    (tmp_path / "out" / "generated.csv").write_bytes(b"mine")  # a name of ours, which this run has not written yet
    with pytest.raises(InputError, match=r"generated\.csv: is there, and is not of this program"):
        logit_lens.run.main([*options, "--generate", "2", "--overwrite"])
    assert (tmp_path / "out" / "generated.csv").read_bytes() == b"mine"
