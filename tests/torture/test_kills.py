"""Two starts at once, and kills at any moment: the rows and tables are those of an undisturbed run, to the byte."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.files import claim
from tests.torture.starts import ROWS, TIMES, Fate, Job, Start, start_several

Calm = Callable[[str], Job]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ROWS]


def csvs(out: Path) -> dict[str, bytes]:
    """Return what tables and rows hold; everything else that should not lie there fails the comparison."""
    return {f.name: f.read_bytes() if f.suffix == ".csv" else b"" for f in out.iterdir()}


def finish(job: Job, log: Path, *, processes: int = 1) -> None:
    for start in start_several(job, log, processes):
        assert start.end() == 0, start.log.read_text()


@pytest.mark.parametrize("name", ["logit_lens", SLOW[1]])
def test_two_starts_at_the_same_moment(name: str, calm: Calm, tmp_path: Path) -> None:
    for number in range(TIMES // 2 or 1):
        job = calm(name).into(tmp_path / f"out{number}")
        at = time.time() + 0.5
        starts = [Start(job, tmp_path / f"log{number}.{i}", at=at) for i in range(2)]
        codes = [start.end() for start in starts]
        assert sorted(codes) == [0, 2], [start.log.read_text() for start in starts]
        winner, loser = sorted(starts, key=lambda start: start.process.exitcode)
        assert f"{job.out} is held by process {winner.process.pid} on" in loser.last_line
        assert len(loser.log.read_text().splitlines()) == 1
        assert csvs(job.out) == csvs(calm(name).out)
        shutil.rmtree(job.out)


@pytest.mark.parametrize("name", ["logit_lens", SLOW[1]])
def test_two_processes_share_a_run(name: str, calm: Calm, tmp_path: Path) -> None:
    job = calm(name).into(tmp_path / "out")
    finish(job, tmp_path / "log", processes=2)
    assert csvs(job.out) == csvs(calm(name).out) and '"processes": 2' in (job.out / "run.json").read_text()


def killed_before_each_touch(job: Job, tmp_path: Path, begin: Callable[[Path], None]) -> int:
    """Kill a run when it is about to touch a file, each file in turn; return how many it touches."""
    number, step = (1, 1) if TIMES else (8, 33)
    while True:
        own, log = job.into(tmp_path / f"out{number}"), tmp_path / f"log{number}"
        begin(own.out)
        if Start(own, log, fate=Fate(number)).end() == 0:
            return number
        finish(own, log)
        assert csvs(own.out) == csvs(job.out), number
        shutil.rmtree(own.out)
        number += step


@pytest.mark.parametrize("name", SLOW)
def test_killed_before_it_touches_a_file(name: str, calm: Calm, tmp_path: Path) -> None:
    assert killed_before_each_touch(calm(name), tmp_path, lambda out: None) > 40


@pytest.mark.parametrize("name", SLOW)
def test_killed_while_it_gathers_what_others_left(name: str, calm: Calm, tmp_path: Path) -> None:
    """Two processes have left parts, the same units in both among them, and the last unit of each not whole."""
    job = calm(name)
    header, *rows = job.rows.read_text().splitlines(keepends=True)

    def parts(out: Path) -> None:
        out.mkdir()
        claim(out / "run.json").write_text((job.out / "run.json").read_text().replace('"finished": true', '"finished": false'))
        for part, share in enumerate((rows[:23], rows[10:47])):
            claim(out / f"{job.rows.stem}.part{part:04d}.csv").write_text(header + "".join(share))

    assert killed_before_each_touch(job, tmp_path, parts) > 35


@pytest.mark.parametrize("name", SLOW)
def test_killed_at_random_moments(name: str, calm: Calm, seconds: float, tmp_path: Path) -> None:
    """Killed again and again in one folder, what was last written cut anywhere, then finished."""
    draw, killed, folders = random.Random(1), 0, 0
    while killed < (TIMES or 2):
        job, log = calm(name).into(tmp_path / f"out{folders}"), tmp_path / f"log{folders}"
        folders += 1
        for _ in range(draw.randint(1, 6 if TIMES else 2)):
            killed += Start(job, log).kill(after=draw.uniform(0, seconds)) == -9
            cut(job, draw)
        finish(job, log)
        assert csvs(job.out) == csvs(calm(name).out), killed
        shutil.rmtree(job.out)


@pytest.mark.parametrize("name", SLOW)
def test_one_of_two_processes_killed(name: str, calm: Calm, seconds: float, tmp_path: Path) -> None:
    """The other is ended, as a launcher does, or outlives it; then any number of processes goes on."""
    draw = random.Random(2)
    for number in range(TIMES // 2 or 1):
        job, log = calm(name).into(tmp_path / f"out{number}"), tmp_path / f"log{number}"
        starts = start_several(job, log, 2)
        victim = draw.randrange(2)
        starts[victim].kill(after=draw.uniform(0, 1.5 * seconds))
        outlives = victim == 0 and draw.random() < 0.5
        if not outlives:
            starts[1 - victim].process.terminate()
            starts[1 - victim].end()
        cut(job, draw)
        finish(job, tmp_path / f"again{number}", processes=draw.randint(1, 3))
        starts[1 - victim].kill()
        finish(job, tmp_path / f"once_more{number}")  # what one that outlived the first has left
        assert csvs(job.out) == csvs(calm(name).out), number
        shutil.rmtree(job.out)


def cut(job: Job, draw: random.Random) -> None:
    """Cut one of the files of rows anywhere, as a machine that stops may."""
    files = sorted(job.out.glob(f"{job.rows.stem}*.csv"))
    if files and draw.random() < 0.5 and '"finished": true' not in (job.out / "run.json").read_text():
        file = draw.choice(files)
        os.truncate(file, draw.randint(0, file.stat().st_size))
