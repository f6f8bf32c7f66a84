import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.torture.starts import Job, Start

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the tokenizers warn of a fork


@pytest.fixture(scope="session")
def calm(tiny_folder: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Job]:
    """The undisturbed run of each script."""
    folder = tmp_path_factory.mktemp("undisturbed")

    @cache
    def undisturbed(name: str) -> Job:
        job = Job(name, tiny_folder, manifest, folder / name)
        start = Start(job, folder / f"{name}.log")
        assert start.end() == 0, start.log.read_text()
        return job

    return undisturbed


@pytest.fixture(scope="session")
def seconds(calm: Callable[[str], Job], tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long an undisturbed run takes."""
    folder, job = tmp_path_factory.mktemp("timed"), calm("logit_lens")
    begun = time.time()
    assert Start(job.into(folder / "out"), folder / "log").end() == 0
    return time.time() - begun
