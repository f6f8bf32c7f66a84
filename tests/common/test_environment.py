"""What a program inherits from its parent: it works, or says in one line what is wrong."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from common import processes
from common.environment import SPIN, thread_settings
from common.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "logit_lens/run.py"
MEETING = {"RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29511"}


def started(*options: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options], capture_output=True, text=True, cwd=cwd, env={"PATH": os.environ["PATH"], **environment}
    )


def ends_in_one_line(done: subprocess.CompletedProcess[str], line: str) -> None:
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert line in done.stderr


def test_a_start_with_hardly_any_environment_and_a_notebooks_backend(tmp_path: Path) -> None:
    """No HOME, no locale, a backend that is not installed, packages of the same names on the path."""
    for name in ("common", "data", "report", "logit_lens", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise AssertionError('somebody else is imported')\n")
    told = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONPATH": str(tmp_path), "LC_ALL": "C"}
    for script, options in ((SCRIPT, ("--data", "gone.csv")), ("data/check_manifest.py", ("gone.csv",))):
        ends_in_one_line(started(str(ROOT / script), *options, cwd=tmp_path, **told), "gone.csv: no such manifest")


def test_a_script_run_in_a_notebook_that_has_modules_of_the_same_names() -> None:
    code = f"""
import runpy, sys, types
for name in ("common", "common.clips", "logit_lens"):
    sys.modules[name] = types.ModuleType(name)
sys.argv = ["run.py", "--data", "gone.csv"]
runpy.run_path({SCRIPT!r}, run_name="__main__")
"""
    ends_in_one_line(started("-c", code), "gone.csv: no such manifest")


PRINTS = """
import sys
sys.path.insert(0, ".")
from common.environment import patient_streams
patient_streams()
for _ in range(3000):
    print("声音 \\udcff", "x" * 100)
print("done", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "end", ["| head -1", ">/dev/full", ">&-", "2>&- >/dev/null", "2>/dev/full >/dev/null", "| cat >/dev/null"]
)
def test_a_print_never_ends_a_program(end: str) -> None:
    line = f"{sys.executable} -c '{PRINTS}' {end}; test ${{PIPESTATUS[0]}} = 0"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, env={"PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0 and done.stderr.replace("done\n", "") == "", done.stderr


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", **MEETING, "MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"WORLD_SIZE": "two", **MEETING}, "WORLD_SIZE=two in the environment: must be a whole number"),
        ({"WORLD_SIZE": "2", **MEETING, "RANK": "2"}, "RANK=2 in the environment: must be a whole number from 0 to 1"),
    ],
)
def test_half_of_what_a_launcher_sets_is_one_line(told: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=line) as caught:
        processes.count()
    assert "for a run of one process unset WORLD_SIZE" in str(caught.value)


@pytest.mark.parametrize(
    "told", [{}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1"}, {"SLURM_NTASKS": "4", "OMPI_COMM_WORLD_SIZE": "4"}]
)
def test_a_process_alone_needs_nothing_of_a_launcher(told: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_WORLD_SIZE": "", **told}.items():
        monkeypatch.setenv(name, value)
    assert (processes.count(), processes.rank(), processes.processes_here()) == (1, 0, 1)


def test_a_process_that_waits_says_for_whom(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for name, value in {"WORLD_SIZE": "2", **MEETING}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_PATIENCE", 0.05)
    meet = types.SimpleNamespace(PartialState=lambda **_: time.sleep(0.3))
    monkeypatch.setitem(sys.modules, "accelerate", meet)
    processes._state.__wrapped__()
    assert capsys.readouterr().err.startswith(
        "waiting at localhost:29511 for the other 1 of the WORLD_SIZE=2 processes; start all"
    )

    def refused(**_: object) -> None:
        raise RuntimeError("The server socket has failed to listen on port: 29511\nmore")

    meet.PartialState = refused
    with pytest.raises(
        InputError, match=r"cannot meet at localhost:29511 \(The server socket has failed to listen on port: 29511\)"
    ):
        processes._state.__wrapped__()
    assert not capsys.readouterr().err


def test_threads_leave_room_for_others_and_never_go_against_what_is_set() -> None:
    def free(cores: float | None) -> dict[str, str]:
        return thread_settings({}, cores=4, free=lambda: cores)

    assert free(4.0) == free(3.6) == free(None) == {"GOMP_SPINCOUNT": SPIN}
    assert [free(c)["OMP_NUM_THREADS"] for c in (3.4, 2.0, 0.2, 0.0)] == ["3", "2", "1", "1"]
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT"):
        assert thread_settings({name: "4"}, cores=4, free=lambda: 0.0) == {"GOMP_SPINCOUNT": SPIN}
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        assert thread_settings({name: "x"}, cores=1, free=lambda: 0.0) == {}


def test_threads_are_set_before_torch_is_loaded() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from common import environment
environment._free_cores = lambda: 0.0
environment._cores = lambda: 8
environment.prepare("x.py")
import os
assert "torch" not in sys.modules and os.environ["OMP_NUM_THREADS"] == "1" and os.environ["GOMP_SPINCOUNT"] == {SPIN!r}
"""
    assert started("-c", code).returncode == 0
