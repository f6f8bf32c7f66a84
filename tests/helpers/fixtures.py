"""Fixtures of all tests: the tiny model, clips, a finished run of each script; no figure is drawn, no model downloaded."""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common import default_model
from common.model.lm import AudioLM
from common.model.load import load_model
from common.run import record
from tests.helpers.runs import SCRIPTS, start
from tests.helpers.study import nothing_drawn
from tests.tiny_models.tiny import save_clips, save_tiny_model

torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other, worst of all on a busy machine
if not torch.cuda.is_available():
    torch.manual_seed = torch.default_generator.manual_seed  # its own writes down all calls, for a GPU that is not there
record._code, record._imported = cache(record._code), cache(record._imported)  # a third of a run: the code stays as it is


@pytest.fixture(autouse=True)
def _figures_are_empty(request: pytest.FixtureRequest) -> Iterator[None]:
    """Draw in the tests alone that are marked as about figures: it takes most of the time of a run."""
    with nullcontext() if request.node.get_closest_marker("draws") else nothing_drawn():
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_model_is_put_together() -> Iterator[None]:
    """Fail where a test names no model: it would download one, or use the one that happens to lie there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default_model, "SMALL", Path("no-such-folder"))
        patch.setattr(default_model, "subprocess", SimpleNamespace(run=lambda *_, **__: pytest.fail("a test without --model")))
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def lm(tiny_folder: Path) -> AudioLM:
    return load_model(str(tiny_folder), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 texts of different length x 5 prosodies x 2 speakers."""
    return save_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def finished(tiny_folder: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each script, to be read, or copied and gone on with."""
    folder = tmp_path_factory.mktemp("finished")
    with nothing_drawn():
        for name in SCRIPTS:
            start(name, tiny_folder, manifest, folder / name)
    return {name: folder / name for name in SCRIPTS}
