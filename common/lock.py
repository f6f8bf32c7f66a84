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
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Thread

import psutil

from common import files
from common.errors import InputError
from common.processes import is_leader

NAME = files.LOCK
BEAT = 20.0  # seconds between a holder's signs of life
SILENT = 300.0  # seconds without one until a holder elsewhere counts as dead
_TOKEN = re.compile(r"[0-9a-f]{16}")
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT)  # another's is there; or it has swept away what was to be renamed
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors of writing alone, which often name no file


class Held(InputError):
    """A live process holds the folder."""


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

    Files that are not whole yet lie in the lock. Raises Held where a live process holds the folder, and InputError where it
    holds files of somebody else's, and where it cannot be written, now or later. Leaves no folder where the run has written
    nothing.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()] if is_leader() else []
    own, stop = None, Event()
    try:
        with ExitStack() as stack:
            if is_leader():
                files.check(out)
                own = _take(out)
                stack.enter_context(files.unfinished_at(_unfinished_of(own)))
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
    _files(lock)
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
            for left in out.iterdir():  # of the killed; one that comes now sees this lock
                _sweep(left)
            return lock / token
        for other in _files(lock):
            with suppress(FileNotFoundError):  # its holder has gone this very moment
                holder, silence = _read(other), now - other.stat().st_mtime
                if holder is None or not _is_dead(holder, silence):
                    _sweep(ready)
                    raise InputError(files.not_ours(lock)) if holder is None else Held(_held_by(out, holder, silence))
                _unfinished_of(other).unlink(missing_ok=True)
                other.unlink()
        with suppress(OSError):
            lock.rmdir()  # some file systems rename onto no folder, not even onto an empty one
        time.sleep(0.05)
    raise InputError(f"--out {out}: cannot be locked; remove {lock} if no run is writing there")


def _sweep(left: Path) -> None:
    """Remove the folder of a start that ended before it was the lock; any other, whatever its name, stays as it is."""
    token = left.name.removeprefix(f"{NAME}.")
    if token == left.name or not _TOKEN.fullmatch(token) or not left.is_dir() or left.is_symlink():
        return
    with suppress(OSError):
        if {f.name for f in left.iterdir()} == {token} and _read(left / token):
            (left / token).unlink()
        left.rmdir()


def _unfinished_of(own: Path) -> Path:
    """Return where a holder writes what is not whole yet, so that who finds it dead knows whose it is."""
    return own.with_name(f".{own.name}")


def _files(lock: Path) -> list[Path]:
    """Return the files of holders; one with a dot is not whole, or what NFS keeps of a removed file while somebody reads it."""
    if lock.exists() and not lock.is_dir():
        raise InputError(files.not_ours(lock))
    try:
        return [f for f in lock.iterdir() if not f.name.startswith(".")]
    except FileNotFoundError:
        return []


def _read(file: Path) -> Holder | None:
    """Return what a holder's file says; None where it is no holder's, whose name is a token."""
    if not _TOKEN.fullmatch(file.name) or not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return Holder(**told)
    except ValueError:
        return None
    except TypeError:  # of a version that writes it otherwise
        of_ours = isinstance(told, dict) and "pid" in told
        return Holder(0, "an unknown machine", -1, 0.0, "an unknown time") if of_ours else None


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
