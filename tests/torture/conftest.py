import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.torture.starts import ROWS, Job, Start

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the tokenizers warn of a fork


@pytest.fixture(scope="session")
def _undisturbed(tiny_folder: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Job], float]:
    folder = tmp_path_factory.mktemp("undisturbed")
    jobs = {name: Job(name, tiny_folder, manifest, folder / name) for name in ROWS}
    for name, job in jobs.items():
        begun = time.time()
        start = Start(job, folder / f"{name}.log")
        assert start.end() == 0, start.log.read_text()
    return jobs, time.time() - begun


@pytest.fixture
def calm(_undisturbed: tuple[dict[str, Job], float]) -> Callable[[str], Job]:
    """The undisturbed run of each script."""
    return _undisturbed[0].__getitem__


@pytest.fixture
def seconds(_undisturbed: tuple[dict[str, Job], float]) -> float:
    """How long an undisturbed run takes."""
    return _undisturbed[1]
