"""Digests are of content: a copy is itself, whatever its place and time; read once."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from common import digests
from common.digests import digest_of_files
from common.run.record import alike, differences


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "words_or_voice" / "digests.json"


def folder(path: Path) -> Path:
    (path / "sub").mkdir(parents=True)
    for name, content in (("config.json", b"{}"), ("b c.bin", b"2" * 10), ("sub/声.bin", b"3")):
        (path / name).write_bytes(content)
        os.utime(path / name, (1e9, 1e9))
    return path


def of(path: Path) -> str:
    return digest_of_files(path, [f for f in path.rglob("*") if f.is_file()])


def test_a_copy_has_its_digest_and_a_reader_recomputes_it(tmp_path: Path) -> None:
    one = folder(tmp_path / "one")
    two = Path(shutil.copytree(one, tmp_path / "two"))
    (two / "config.json").touch()
    assert of(one) == of(two)
    lines = "".join(
        f"{hashlib.sha256((one / name).read_bytes()).hexdigest()}  {name}\n" for name in ("b c.bin", "config.json", "sub/声.bin")
    )
    assert of(one) == hashlib.sha256(lines.encode()).hexdigest()[:16]
    recipe = digests.__doc__.split("`")[1].replace("\\\\", "\\")  # type: ignore[union-attr]
    shell = subprocess.run(["bash", "-c", recipe], cwd=one, capture_output=True, text=True)
    if shell.returncode == 0 and not shell.stderr:
        assert shell.stdout.strip() == of(one)
    (two / "sub" / "声.bin").rename(two / "sub" / "音.bin")
    assert of(one) != of(two)


def test_what_was_read_is_not_read_again_and_what_has_changed_is(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, read, sha256 = folder(tmp_path / "one"), [], digests._sha256
    monkeypatch.setattr(digests, "_sha256", lambda file: read.append(file.name) or sha256(file))
    first = of(one)
    assert len(read) == 3 and of(one) == first and len(read) == 3 and cache.is_file()
    (one / "b c.bin").write_bytes(b"4" * 10)
    os.utime(one / "b c.bin", (1e9, 1e9))  # of the same size and time as before
    assert of(one) != first and read[3:] == ["b c.bin"]
    (one / "config.json").write_text("[]")  # just now: it may change again within the same tick
    assert of(one) == of(one) and read[4:] == ["config.json"] * 2
    for content in ("no cache", "[]", '{"x": 1}'):
        cache.write_text(content)
        assert of(one)
    cache.unlink()
    cache.parent.rmdir()
    cache.parent.write_text("a file")  # no place for a cache
    assert of(one) and of(one / "gone") == of(one / "gone")


def test_a_clip_that_cannot_be_read_is_no_traceback(tmp_path: Path) -> None:
    assert digest_of_files(tmp_path, [tmp_path / "gone.wav"]) != digest_of_files(tmp_path, [])


def test_what_a_model_and_clips_hold_decides_and_not_where_they_lie() -> None:
    here = {"model": "/a/m", "model_files": "1", "data": "/a/d.csv", "data_files": "2", "seed": 0}
    there = here | {"model": "/b/m", "data": "/b/d.csv"}
    assert differences(here, there) == [] and alike("data", here, there)
    assert differences(here, there | {"data_files": "3"}) == [
        'data ("/a/d.csv" there, "/b/d.csv" now)',
        'data_files ("2" there, "3" now)',
    ]
    hub = {"model": "org/one", "model_files": None}
    assert differences(hub, hub | {"model": "org/two"}) == ['model ("org/one" there, "org/two" now)']
