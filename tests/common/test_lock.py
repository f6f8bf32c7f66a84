"""Who may write to a folder."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common import files, lock
from common.errors import InputError
from common.lock import held

ANOTHER = "00112233445566aa"  # a holder's token


def put(out: Path, **changed: object) -> Path:
    """Write the lock of another holder: this process, but for what is `changed`."""
    holder = lock.asdict(lock._this_process()) | changed
    (out / lock.NAME).mkdir(parents=True)
    file = out / lock.NAME / ANOTHER
    file.write_text(json.dumps(holder))
    return file


def ended() -> int:
    """Return the pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_run_leaves_no_lock_and_no_folder_that_it_did_not_use(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "b"):
        assert [f.name for f in (tmp_path / "a" / "b").iterdir()] == [lock.NAME]
    assert not (tmp_path / "a").exists()
    with pytest.raises(ZeroDivisionError), held(tmp_path / "a"):
        files.claim(tmp_path / "a" / "rows").touch()
        raise ZeroDivisionError
    assert {f.name for f in (tmp_path / "a").iterdir()} == {"rows", files.LIST}


def test_the_message_names_the_holder_and_nothing_is_touched(tmp_path: Path) -> None:
    file = put(tmp_path, since="2026-11-24 18:00:00+00:00")
    before = file.read_bytes()
    with pytest.raises(InputError, match=rf"process {os.getpid()} on .* since 2026-11-24 18:00.*: wait for it"), held(tmp_path):
        pass
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file.parent] and list(file.parent.iterdir()) == [file]


DEAD: dict[str, Callable[[], dict[str, object]]] = {
    "ended": lambda: {"pid": ended()},
    "another program has its pid now": lambda: {"pid": os.getppid(), "started": 0.5},
}


@pytest.mark.parametrize("case", DEAD)
def test_what_a_dead_process_of_this_machine_left_is_taken_over_at_once(case: str, tmp_path: Path) -> None:
    put(tmp_path, **DEAD[case]())
    with held(tmp_path):
        (own,) = (tmp_path / lock.NAME).iterdir()
        assert json.loads(own.read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_killed_process_that_nobody_has_asked_after_is_dead(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    put(tmp_path, pid=child.pid, started=lock._started(lock.psutil.Process(child.pid)))
    with pytest.raises(InputError, match=f"process {child.pid}"), held(tmp_path):
        pass
    child.kill()
    while lock.psutil.Process(child.pid).status() != lock.psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    with held(tmp_path):
        pass
    child.wait()


@pytest.mark.parametrize("where", [{"host": "node7"}, {"space": 1}, {"unknown": "field"}])
def test_elsewhere_a_holder_is_dead_when_it_has_been_silent(where: dict[str, object], tmp_path: Path) -> None:
    """Its pid says nothing here: on another machine, in another container, in the words of another version."""
    file = put(tmp_path, pid=ended(), **where)
    os.utime(file, (0, time.time() - lock.SILENT + 30))
    with pytest.raises(InputError, match=r"last sign of life 2[67]\d s ago"), held(tmp_path):
        pass
    os.utime(file, (0, time.time() - lock.SILENT - 30))
    with held(tmp_path):
        assert not file.exists()


def test_what_was_left_half_way_is_swept_and_no_more(tmp_path: Path) -> None:
    put(tmp_path / "x").parent.rename(tmp_path / f"{lock.NAME}.{ANOTHER}")  # killed before the renaming
    (tmp_path / "x").rmdir()
    (tmp_path / f"{lock.NAME}.0123456789abcdef").mkdir()  # killed before that
    dead = put(tmp_path, pid=ended())
    dead.with_name(f".{ANOTHER}").write_text("a table that is not whole")
    with held(tmp_path):
        assert [f.name for f in tmp_path.iterdir()] == [lock.NAME] and len(list((tmp_path / lock.NAME).iterdir())) == 1
        files.write_whole(tmp_path / "lens.csv", "a")
        with pytest.raises(ZeroDivisionError), files.in_one_step(tmp_path / "lens.csv") as partial:
            partial.write_text("b")
            assert partial.parent == tmp_path / lock.NAME
            raise ZeroDivisionError
    assert {f.name for f in tmp_path.iterdir()} == {"lens.csv", files.LIST} and (tmp_path / "lens.csv").read_text() == "a"


@pytest.mark.parametrize("name", [lock.NAME, f"{lock.NAME}/notes", f"{lock.NAME}/{ANOTHER}"])
def test_a_lock_of_somebody_else_is_not_ours(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    os.utime(tmp_path / name, (0, 0))
    with pytest.raises(InputError, match=r"run\.lock: is there, and is not of this program"), held(tmp_path):
        pass
    assert (tmp_path / name).read_text() == "{}"


def test_a_holder_gives_signs_of_life_and_ends_where_its_lock_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(lock, "BEAT", 0.01)
    monkeypatch.setattr(lock.os, "_exit", ends.append)
    with held(tmp_path):
        (own,) = (tmp_path / lock.NAME).iterdir()
        os.utime(own, (0, 0))
        time.sleep(0.2)
        assert time.time() - own.stat().st_mtime < 10 and not ends
        own.unlink()
        time.sleep(0.2)
    assert set(ends) == {2} and "taken over by another run while this one slept" in capsys.readouterr().err


def test_only_the_first_of_several_processes_holds_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "is_leader", lambda: False)
    put(tmp_path)
    with held(tmp_path), held(tmp_path / "b"):
        assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_what_cannot_be_written_is_one_line(code: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written \(.*\); what is there is kept"), held(tmp_path):
        raise OSError(code, os.strerror(code), *((str(tmp_path / "lens.csv"),) if code == errno.EACCES else ()))
    with pytest.raises(ConnectionError), held(tmp_path):
        raise ConnectionError("of something else")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"), held(tmp_path / "file" / "out"):
        pass
