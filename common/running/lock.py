"""One run at a time in an output folder: a lock that no dead process keeps, on a network file system too.

The lock is a folder `run.lock` with one file, named by a token of its holder. It comes about by renaming a folder that is
ready: the file system refuses that, in one step, while another holder's file lies there. A dead holder's file is removed by
its name, which no other holder has, so two that find it at the same time never remove each other's. Libraries fall short:
filelock's SoftFileLease takes no dead lock over where names cannot be exchanged (NFS, SMB), flufl.lock asks for no pid.
"""

import errno
import json
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Thread

import psutil

from common.errors import InputError
from common.running.parallel import is_leader

NAME = "run.lock"
BEAT = 20.0  # seconds between a holder's signs of life
SILENT = 300.0  # seconds without one until a holder elsewhere counts as dead
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT)  # another's is there; or it has swept away what was to be renamed
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors of writing alone, which often name no file


@dataclass(frozen=True)
class Holder:
    """A process that holds a folder: `space` is where on `host` its `pid` counts, `started` in seconds after the machine did."""

    pid: int
    host: str
    space: int
    started: float
    since: str


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold `out` while a run writes to it; of several processes, the first does so for all.

    Raises InputError where a live process holds it, naming it, and where `out` cannot be written, now or later. Leaves no
    folder where the run has written nothing.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()] if is_leader() else []
    own, stop = None, Event()
    try:
        if is_leader():
            own = _take(out)
            Thread(target=_beat, args=(own, stop), daemon=True).start()
        yield
    except OSError as error:
        if error.errno not in _FULL and not _is_about(error, out):
            raise
        raise InputError(
            f"--out {out}: cannot be written ({error.strerror}); what is there is kept, and the same command goes on from here"
        ) from None
    finally:
        stop.set()
        with suppress(OSError):  # a folder that has turned read-only keeps the lock: of a dead process, soon
            if own is not None:
                own.unlink()
                own.parent.rmdir()
            for folder in made:
                folder.rmdir()


def _take(out: Path) -> Path:
    """Return this process's file in the lock of `out`, once it is there; raises InputError where a live process holds `out`."""
    lock, token = out / NAME, secrets.token_hex(8)
    ready = out / f"{NAME}.{token}"
    for _ in range(100):
        now = time.time()
        try:
            ready.mkdir(parents=True, exist_ok=True)
            (ready / token).write_text(json.dumps(asdict(_this_process())), encoding="utf-8")
            now = (ready / token).stat().st_mtime  # by the file system's clock, which the signs of life go by too
            ready.rename(lock)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        if (lock / token).exists():  # also where a network file system has renamed and its answer was lost
            for left in (*out.glob(f"{NAME}.*"), *out.glob("*.partial")):  # of the killed; one that comes now sees this lock
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
            return lock / token
        for other in _files(lock):
            with suppress(FileNotFoundError):  # its holder has gone this very moment
                holder, silence = _read(other), now - other.stat().st_mtime
                if not _is_dead(holder, silence):
                    shutil.rmtree(ready, ignore_errors=True)
                    raise InputError(_held_by(out, holder, silence))
                other.unlink()
        with suppress(OSError):
            lock.rmdir()  # some file systems rename onto no folder, not even onto an empty one
        time.sleep(0.05)
    raise InputError(f"--out {out}: cannot be locked; remove {lock} if no run is writing there")


def _files(lock: Path) -> list[Path]:
    """Return the files of holders; one with a dot is what NFS keeps of a removed file while somebody reads it."""
    try:
        return [f for f in lock.iterdir() if not f.name.startswith(".")]
    except FileNotFoundError:
        return []


def _read(file: Path) -> Holder:
    try:
        return Holder(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return Holder(0, "an unknown machine", -1, 0.0, "an unknown time")  # of a version that writes it otherwise


def _is_dead(holder: Holder, silence: float) -> bool:
    """Tell whether a holder has ended: on this machine its process is gone or another one's now; elsewhere it is silent."""
    if not _is_here(holder):
        return silence > SILENT
    try:
        process = psutil.Process(holder.pid)
        return process.status() == psutil.STATUS_ZOMBIE or abs(_started(process) - holder.started) > 2
    except psutil.NoSuchProcess:
        return True


def _this_process() -> Holder:
    try:
        space = os.stat("/proc/self/ns/pid").st_ino  # containers may share a host name and number their processes apart
    except OSError:
        space = 0
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    return Holder(os.getpid(), platform.node(), space, _started(psutil.Process()), since)


def _started(process: psutil.Process) -> float:
    return float(process.create_time() - psutil.boot_time())  # the difference stays where somebody sets the clock


def _is_here(holder: Holder) -> bool:
    here = _this_process()
    return (holder.host, holder.space) == (here.host, here.space)


def _held_by(out: Path, holder: Holder, silence: float) -> str:
    who = f"process {holder.pid} on {holder.host} since {holder.since}"
    if not _is_here(holder):
        who += f" (last sign of life {max(0, silence):.0f} s ago; after {SILENT:.0f} s without one the folder is free)"
    return f"--out {out} is held by {who}: wait for it, stop it, or give another --out"


def _is_about(error: OSError, out: Path) -> bool:
    path = Path(str(error.filename))
    return error.filename is not None and (path.is_relative_to(out) or out.is_relative_to(path))


def _beat(own: Path, stop: Event) -> None:
    """Give a sign of life now and then; end the program where its lock is gone, as a kill would: rows are safe from that."""
    while not stop.wait(BEAT):
        try:
            os.utime(own)
        except FileNotFoundError:
            if not stop.is_set():
                out = own.parent.parent
                print(f"\nerror: --out {out}: removed, or taken over by another run while this one slept", file=sys.stderr)
                os._exit(2)
        except OSError:
            continue  # a network file system may be away for a while
