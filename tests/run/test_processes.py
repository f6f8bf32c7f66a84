"""Several processes give the files of one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from activation_patching.span import patch
from common import files, processes
from common.compute.activation_cache import in_chunks
from common.errors import InputError
from common.patching.splice import splice
from common.run import rows as run_rows
from tests.helpers.runs import FEW, ROOT, ROWS, start
from tests.tiny_models.tiny import LAYERS

RUNS = [("logit_lens", more) for more in ((), ("--probe", "--generate", "3"), ("--lens", "tuned"), ("--prompts", "all"))]
RUNS += [("activation_patching", more) for more in ((), ("--at", "last", "--kinds", "prosody", "--intervention", "exchange"))]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "more"), RUNS)
def test_two_processes_give_the_same_tables_as_one(
    name: str, more: tuple[str, ...], tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    start(name, tiny_folder, manifest, tmp_path / "one", *more)
    where = ("--model", str(tiny_folder), "--data", str(manifest), "--out", str(tmp_path / "two"), "--device", "cpu")
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    done = subprocess.run([*launch, str(ROOT / name / "run.py"), *where, *FEW[name], *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = ({str(f.relative_to(tmp_path / d)): f for f in (tmp_path / d).rglob("*.*")} for d in ("one", "two"))
    assert one.keys() == two.keys() and {ROWS[name], "layers.csv", "run.json"} <= {f.name for f in one.values()}
    assert all('"processes": 2' in f.read_text() for f in two.values() if f.name == "run.json")
    for file in (f for f in one if f.endswith((".csv", ".npy"))):
        assert one[file].read_bytes() == two[file].read_bytes(), file


def left_by(file: Path) -> Path:
    """Return a file that a run may have left in its folder."""
    return files.claim(file)


def test_what_interrupted_processes_left_is_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = left_by(tmp_path / "lens.csv")
    rows.write_text("sample_id,layer\nd,0\nd,1\n")
    left_by(tmp_path / "lens.part0000.csv").write_text("sample_id,layer\nb,0\nb,1\nc,0\n")  # c was not finished
    left_by(tmp_path / "lens.part0001.csv").write_text("sample_id,layer\na,0\na,1\ne,0\ne")  # nor e, cut within a line
    (tmp_path / "lens.part0002.csv").write_text("mine")
    assert run_rows.finished_units(rows, "sample_id", range(2)) == set("abd")
    assert {f.name for f in tmp_path.iterdir()} == {"lens.csv", "lens.part0002.csv", files.LIST}
    run_rows.gather_rows(rows, "sample_id", range(2), list("abd"))
    assert rows.read_text() == "sample_id,layer\na,0\na,1\nb,0\nb,1\nd,0\nd,1\n"


def test_an_empty_part_leaves_the_rows_alone(tmp_path: Path) -> None:
    rows = left_by(tmp_path / "lens.csv")
    rows.write_text("sample_id,layer\na,0\na,1\n")
    for left in ("", "sample_", "sample_id,layer\nb,0\n"):
        left_by(tmp_path / "lens.part0000.csv").write_text(left)
        assert run_rows.finished_units(rows, "sample_id", range(2)) == {"a"}
        assert rows.read_text() == "sample_id,layer\na,0\na,1\n" and len(list(tmp_path.iterdir())) == 2


def test_rows_that_are_missing_make_no_table(tmp_path: Path) -> None:
    rows = left_by(tmp_path / "lens.csv")
    rows.write_text("sample_id,layer\na,0\na,1\n")
    with pytest.raises(InputError, match="1 of 2 units are missing"):
        run_rows.gather_rows(rows, "sample_id", range(2), ["a", "b"])
    rows.unlink()
    with pytest.raises(InputError, match="2 of 2 units are missing"):
        run_rows.gather_rows(rows, "sample_id", range(2), ["a", "b"])


def test_a_unit_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    """Parts that were gathered but not yet removed, a group that was made again, rows of a unit that was cut before."""
    rows = left_by(tmp_path / "lens.csv")
    header, a, b = "sample_id,layer\n", "a,0\na,1\n", "b,0\nb,1\n"
    for there, left in ((a + b, b), (a, b + a), (a + b + a, a), ("b,0\n" + a + "a,0\n" + a, b), (b, a + "a,1\n")):
        rows.write_text(header + there)
        part = left_by(tmp_path / "lens.part0001.7.csv")
        part.write_text(header + left)
        run_rows.gather_rows(rows, "sample_id", range(2), ["a", "b"])
        assert rows.read_text() == header + a + b and not part.exists()


def test_a_group_that_was_cut_is_made_again_whole(
    tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of fewer pairs rounds otherwise, on a GPU: the rows would not be those of an undisturbed run."""
    sizes: list[int] = []

    def counted(lm: object, donor: object, recipients: list, tokens: object) -> object:
        sizes.append(len(recipients))
        return splice(lm, donor, recipients, tokens)

    monkeypatch.setattr(patch, "splice", counted)
    start("activation_patching", tiny_folder, manifest, tmp_path)
    rows, record = tmp_path / "patches.csv", tmp_path / "run.json"
    whole = rows.read_bytes()
    of_groups, sizes[:] = list(sizes), []
    group = next(i for i, size in enumerate(of_groups) if size > 1)
    first = 1 + sum(of_groups[:group]) * (LAYERS + 1)  # the line of the group's first pair
    lines = whole.splitlines(keepends=True)
    rows.write_bytes(b"".join(lines[:first] + lines[first + LAYERS + 1 :]))
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    start("activation_patching", tiny_folder, manifest, tmp_path)
    assert sizes == [of_groups[group]] and rows.read_bytes() == whole


def test_each_process_has_its_share_and_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    shares, parts = [], []
    for rank in range(3):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(processes, "count", lambda: 3)
        shares += processes.part_of(list("abcdefg"))
        parts.append(run_rows.part_names(Path("lens.csv"), "start")[rank].name)
    assert sorted(shares) == list("abcdefg") and len(set(parts)) == 3


def test_in_chunks_halves_where_memory_runs_out() -> None:
    def work(items: list[int]) -> list[int]:
        if len(items) > 3:
            raise torch.OutOfMemoryError
        return items

    assert in_chunks(work, list(range(10)), 8) == ([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]], 2)
    with pytest.raises(torch.OutOfMemoryError):
        in_chunks(lambda _: work([0] * 4), [1, 2], 2)
