"""A full disk, a folder that turns read-only, a clip that goes away: one line, and going on gives the undisturbed run."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from tests.torture.starts import ROWS, TIMES, Fate, Job, Start
from tests.torture.test_kills import csvs, finish

Calm = Callable[[str], Job]
pytestmark = pytest.mark.slow


@contextmanager
def mounted(*command: str) -> Iterator[Path]:
    """Mount something on the last of `command` for a while; skip where that is not allowed."""
    folder = Path(command[-1])
    folder.mkdir()
    if subprocess.run(("mount", *command), capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(("umount", str(folder)), check=True)


def fails(start: Start, message: str) -> None:
    """Wait for the end: one line, and no traceback."""
    assert start.end() == 2, start.log.read_text()
    assert message in start.last_line and "Traceback" not in start.log.read_text()


PAGE = 4  # KiB, of which a tmpfs takes whole ones


def pages(file: Path) -> int:
    return -(-file.stat().st_size // (PAGE * 1024))


@pytest.mark.parametrize("share", (0.5, 1.3, 3.0, None) if TIMES else (0.5,))  # of the rows; None: all but the last figure's end
@pytest.mark.parametrize("name", ROWS)
def test_a_full_disk(name: str, share: float | None, calm: Calm, tmp_path: Path) -> None:
    job = calm(name).into(tmp_path / "disk" / "out")
    whole = calm(name).rows.stat().st_size
    everything, rows = sum(map(pages, calm(name).out.iterdir())), pages(calm(name).rows)
    size = PAGE * (everything - 3 if share is None else 3 + int(rows * share))  # 3: lock, run.json, a page begun
    with mounted("-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(tmp_path / "disk")) as disk:
        full = f"--out {job.out}: cannot be written (No space left on device)"
        fails(Start(job, tmp_path / "log"), f"{full}; what is there is kept, and the same command goes on from here")
        kept = job.rows.stat().st_size
        assert kept >= min(size * 1024, whole) / 3
        fails(Start(job, tmp_path / "again"), full)
        assert job.rows.stat().st_size == kept
        subprocess.run(("mount", "-o", "remount,size=50m", str(disk)), check=True)
        finish(job, tmp_path / "log")
        assert csvs(job.out) == csvs(calm(name).out)


@pytest.mark.parametrize("number", (1, 16, 34) if TIMES else (16,))  # before anything is written, among rows and tables
@pytest.mark.parametrize("name", ROWS)
def test_a_folder_that_turns_read_only(name: str, number: int, calm: Calm, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with mounted("--bind", str(tmp_path / "there"), str(tmp_path / "out")) as out:
        job = calm(name).into(out)
        read_only = ("mount", "-o", "remount,ro,bind", str(out))
        fails(Start(job, tmp_path / "log", fate=Fate(number, read_only)), "cannot be written (Read-only file system)")
        fails(Start(job, tmp_path / "log"), "cannot be written (Read-only file system)")
        subprocess.run(("mount", "-o", "remount,rw,bind", str(out)), check=True)
        finish(job, tmp_path / "log")
        assert csvs(job.out) == csvs(calm(name).out)


@pytest.mark.parametrize("name", ROWS)
def test_a_clip_that_goes_away(name: str, calm: Calm, tmp_path: Path) -> None:
    job = calm(name).into(tmp_path / "out")
    last = pd.read_csv(calm(name).rows).iloc[-1]
    clip = job.data.parent / f"{last.get('sample_id', last.get('donor_id'))}.wav"
    away = tmp_path / clip.name
    try:
        fails(Start(job, tmp_path / "log", fate=Fate(14, ("mv", str(clip), str(away)))), f"{clip}: not readable as audio")
        there = len(pd.read_csv(job.rows))
        fails(Start(job, tmp_path / "log"), f"{clip.name}")
        assert 0 < there == len(pd.read_csv(job.rows)) < len(pd.read_csv(calm(name).rows))
    finally:
        subprocess.run(("mv", str(away), str(clip)), check=True)  # with its time of change, which identifies it
    finish(job, tmp_path / "log")
    assert csvs(job.out) == csvs(calm(name).out)
