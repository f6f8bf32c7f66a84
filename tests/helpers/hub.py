"""A small server of the Hugging Face hub's protocol on loopback, and processes that run the scripts against it."""

import hashlib
import io
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


@dataclass
class Repo:
    """A repository: its `revisions`, branches and commits, each a commit and a folder; what the server does to who asks for it.

    `gated` is the status that all but its name is answered with. A file in `cut` ends after so many bytes, one in `told` is said
    to have so many.
    """

    revisions: dict[str, tuple[str, Path]]
    gated: int | None = None
    cut: dict[str, int] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    """Answers for `repos`, and puts down what is `asked` for."""

    protocol_version = "HTTP/1.1"
    repos: dict[str, Repo]
    asked: list[str]

    def log_message(self, *_: object) -> None:
        self.asked.append(f"{self.command} {self.path}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        api = path.startswith("api/models/")
        owner, name, *rest = path.removeprefix("api/models/").split("/")
        repo = self.repos.get(f"{owner}/{name}")
        if repo is None:
            return self.refuse(401 if api else 404, "RepoNotFound")  # the hub does not tell a stranger what is private
        if repo.gated and not api:
            return self.refuse(repo.gated, "GatedRepo")
        verb, revision, *inside = [*rest, *("revision", "main")[len(rest) :]] if len(rest) < 2 else rest
        if revision not in repo.revisions:
            return self.refuse(404, "RevisionNotFound")
        commit, folder = repo.revisions[revision]
        place = folder.joinpath(*inside)
        if not place.exists():
            return self.refuse(404, "EntryNotFound", commit)
        if verb == "revision":
            files = [{"rfilename": str(f.relative_to(folder))} for f in sorted(folder.rglob("*")) if f.is_file()]
            return self.tell({"id": f"{owner}/{name}", "sha": commit, "siblings": files, "private": False, "tags": []})
        if verb == "tree":
            deep = "recursive=true" in self.path.lower()
            listed = sorted(place.rglob("*") if deep else place.iterdir())
            return self.tell([self.entry(f, folder) for f in listed])
        size = repo.told.get(place.name, place.stat().st_size)
        self.send_file(place, commit, size, large=place.suffix == ".safetensors", cut=repo.cut.get(place.name))

    def entry(self, file: Path, folder: Path) -> dict[str, object]:
        kind = "directory" if file.is_dir() else "file"
        return {"type": kind, "path": str(file.relative_to(folder)), "size": file.stat().st_size, "oid": "0" * 40}

    def send_file(self, file: Path, commit: str, size: int, *, large: bool, cut: int | None) -> None:
        """Send a file; a large one from another address, as the hub's storage does."""
        body = file.read_bytes()
        told = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        if large and "storage=1" not in self.path:
            there = {"X-Linked-Etag": told["ETag"], "X-Linked-Size": str(size), "Location": f"{self.path}?storage=1"}
            return self.answer(302, b"", told | there)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        told |= {"Content-Length": str(size)} if self.command == "HEAD" else {}
        self.answer(206 if start else 200, body[start:], told, cut=None if cut is None else max(0, cut - start))

    def tell(self, what: object) -> None:
        self.answer(200, json.dumps(what).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str, commit: str | None = None) -> None:
        commits = {"X-Repo-Commit": commit} if commit else {}
        self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "no", **commits})

    def answer(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for header, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
            self.close_connection = cut is not None


@contextmanager
def hub(repos: dict[str, Repo]) -> Iterator[tuple[str, list[str]]]:
    """Serve `repos` by their names; give the endpoint and a list that fills with what is asked for."""
    asked: list[str] = []
    handler = type("Own", (Handler,), {"repos": repos, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def scripts(**environment: str) -> Iterator[Callable[[str, list[str]], tuple[int, str]]]:
    """Start a process with this `environment`; give what runs a script in it and returns exit code and last line on stderr.

    The hub's client reads its variables once, when it is imported: so a process for each set of them, for all its runs.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.hub"],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdin and child.stdout
    into, out = child.stdin, child.stdout

    def run(name: str, argv: list[str]) -> tuple[int, str]:
        print(json.dumps([name, argv]), file=into, flush=True)
        code, said = json.loads(out.readline())
        return code, said

    with child:
        yield run
        into.close()


def main() -> None:
    """Run the command lines that come in, one in a line, and answer each with its exit code and last line on stderr."""
    wait = time.sleep
    time.sleep = lambda seconds: wait(min(seconds, 0.01))  # between the client's tries
    import torch

    import activation_patching.run
    import logit_lens.run
    from common.run.command_line import main_of

    torch.set_num_threads(1)
    mains = {"logit_lens": logit_lens.run.main, "activation_patching": activation_patching.run.main}
    for line in sys.stdin:
        name, argv = json.loads(line)
        said, code = io.StringIO(), 0
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            try:
                main_of(lambda _, name=name, argv=argv: mains[name](argv))  # type: ignore[misc]
            except SystemExit as stop:
                code = int(stop.code or 0)
            except Exception:
                code, said = 1, io.StringIO(traceback.format_exc())
        print(json.dumps([code, said.getvalue().strip().rpartition("\n")[2]]), flush=True)


if __name__ == "__main__":
    main()
