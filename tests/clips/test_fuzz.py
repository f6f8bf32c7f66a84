"""Manifests, audio files, paths, labels and environments of every kind: right or a clear error, no traceback, hang or wrong row.

A short form by default; `make fuzz` (FUZZ=whole) draws 2,000 manifests, paths and folders, 500 audio files, and a million rows.
"""

import argparse
import csv
import html
import io
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from common import processes
from common.clips.audio import BadClip, load_audio
from common.clips.csvfile import read_table
from common.clips.manifest import COLUMNS, LABELS, read_manifest
from common.errors import InputError
from common.paths import given_path, why_missing
from report.markdown import fenced, plain
from report.markdown import table as table_of

WHOLE = os.environ.get("FUZZ") == "whole"
RATE = 16_000


def fuzz(whole: int, short: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Draw `whole` examples with FUZZ=whole, else `short` of them; each has 10 seconds."""
    return settings(
        max_examples=whole if WHOLE else short,
        deadline=10_000,
        derandomize=not WHOLE,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzz")
    for name in ("a.wav", "b c.wav", "声音.wav"):
        soundfile.write(place / name, np.full(RATE // 4, 0.1), RATE)
    return place


# Manifests ---------------------------------------------------------------------------------------------------------------

letters = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="|")
name = st.text(letters, min_size=1, max_size=12).map(str.strip).filter(lambda s: s and "<-" not in s)
free = st.text(st.one_of(letters, st.sampled_from("\"',;\t\n\r 我们赢了。")), max_size=30)


@st.composite
def tables(draw: Any) -> list[dict[str, str]]:
    """Draw rows that are right."""
    ids = draw(st.lists(name, min_size=1, max_size=6, unique=True))
    rows = []
    for sample_id in ids:
        row = {
            "sample_id": sample_id,
            "audio": draw(st.sampled_from(("a.wav", "b c.wav", "声音.wav", "./a.wav"))),
            "text": draw(free),
        }
        row |= {
            "text_id": draw(name),
            "semantic_label": draw(st.sampled_from(LABELS)),
            "prosody_label": draw(st.sampled_from(LABELS)),
        }
        rows.append(row | {c: draw(st.one_of(st.just(""), name)) for c in ("speaker", "language", "source")})
    return rows


@st.composite
def files(draw: Any) -> tuple[bytes, list[dict[str, str]]]:
    """Draw right rows and a CSV of them: columns in any order, more of them, blank lines, any line ends and quotes, a BOM."""
    rows = draw(tables())
    columns = draw(st.permutations((*COLUMNS, *draw(st.sampled_from(((), ("note",), ("note", "备注")))))))
    end, quoting = draw(st.sampled_from(("\n", "\r\n"))), draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    padding = draw(st.sampled_from(("", " ", "\u3000")))
    if end == "\n" and quoting == csv.QUOTE_MINIMAL:  # of which csv.writer makes a file that it cannot read itself
        rows = [row | {"text": row["text"].replace("\r", "")} for row in rows]
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator=end, quoting=quoting)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([padding + row.get(c, "x") + padding if c != "text" else row[c] for c in columns])
        file.write(draw(st.sampled_from(("", "", end))))
    return draw(st.sampled_from((b"", b"\xef\xbb\xbf"))) + file.getvalue().encode(), rows


def fields_of(path: Path) -> list[dict[str, str]]:
    def shown(sample: Any) -> dict[str, str]:
        audio = {"audio": str(sample.audio.relative_to(path.parent))}
        return {c: getattr(sample, c) for c in COLUMNS} | audio

    return [shown(s) for s in read_manifest(path)]


@fuzz(whole=1000, short=60)
@given(files())
def test_a_manifest_that_is_right_is_read_to_the_letter(folder: Path, drawn: tuple[bytes, list[dict[str, str]]]) -> None:
    content, rows = drawn
    path = folder / "right.csv"
    path.write_bytes(content)
    expected = [{c: v.strip() for c, v in row.items()} | {"audio": row["audio"].removeprefix("./")} for row in rows]
    assert fields_of(path) == expected


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_manifest_of_a_spreadsheet_is_read_with_its_separator(folder: Path, separator: str) -> None:
    path = folder / "sheet.csv"
    rows = [COLUMNS, ("1", "a.wav", "one, two; three", "t", "happy", "sad", "s", "en", "x")]
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    assert fields_of(path) == [dict(zip(*rows))]


@st.composite
def broken(draw: Any, content: bytes) -> bytes:
    """Draw some faults of a file: bytes that are lost, added, there twice, or are signs that mean something in a CSV."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        stop = min(len(data), start + draw(st.integers(1, 12)))
        fault = draw(st.sampled_from(("lose", "add", "sign", "twice", "cut")))
        signs = (b'"', b",", b"\n", b"\r", b"\0", b";", b"\t", b"\xff", b"\xef\xbb\xbf", b"'", b"\\", b"\x1a", b" ")
        if fault == "lose":
            del data[start:stop]
        elif fault == "add":
            data[start:start] = draw(st.binary(min_size=1, max_size=6))
        elif fault == "sign":
            data[start : start + 1] = draw(st.sampled_from(signs))
        elif fault == "twice":
            data[start:start] = data[start:stop]
        elif draw(st.booleans()):
            del data[stop:]
    return bytes(data)


@fuzz(whole=1000, short=80)
@given(st.data())
def test_a_broken_manifest_gives_right_rows_or_one_line(folder: Path, data: st.DataObject) -> None:
    content, _ = data.draw(files())
    content = data.draw(broken(content))
    path = folder / "broken.csv"
    path.write_bytes(content)
    try:
        found = fields_of(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error) and "\r" not in str(error)
        return
    assume(b"\0" not in content and b"\r" not in content.replace(b"\r\n", b""))  # which the other reader takes otherwise
    try:  # a reader of its own make
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (ValueError, pd.errors.ParserError):
        return
    table.columns = table.columns.str.strip()
    assert found == [
        {c: row[c].strip() for c in COLUMNS} | {"audio": row["audio"].strip().removeprefix("./")}
        for row in table[list(COLUMNS)].to_dict("records")
    ]


@pytest.mark.skipif(not WHOLE, reason="takes a minute: make fuzz")
def test_a_million_rows(folder: Path) -> None:
    path, header = folder / "million.csv", ",".join(COLUMNS)
    with open(path, "w", encoding="utf-8") as file:
        file.write(header + "\n")
        file.writelines(f'{i},a.wav,"一, ""{i}""\n",t{i % 1000},happy,sad,s,zh,x\n' for i in range(1_000_000))
    began = time.process_time()
    samples = read_manifest(path)
    assert len(samples) == 1_000_000 and samples[-1].text == '一, "999999"' and time.process_time() - began < 60
    with open(path, "a", encoding="utf-8") as file:
        file.write("7,a.wav,x,t,happy,sad,s,zh,x\n")
    with pytest.raises(InputError, match="row 1000002, column sample_id: '7' is already in row 9; ids must differ"):
        read_manifest(path)


def test_files_that_are_none(folder: Path) -> None:
    os.mkfifo(folder / "pipe.csv")
    (folder / "folder.csv").mkdir()
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    for file in ("pipe.csv", "folder.csv", "loop.csv"):
        with pytest.raises(InputError, match="no such manifest"):
            read_manifest(folder / file)
    (folder / "loop").symlink_to(folder)
    header, row, gone = ",".join(COLUMNS) + "\n", "1,{},x,t,happy,sad,s,en,x\n", "row 2, column audio: no such file"
    (folder / "m.csv").write_text(header + row.format("loop/loop/a.wav"))
    assert len(read_manifest(folder / "m.csv")) == 1
    for content, message in (
        *((header + row.format(audio), gone) for audio in ("loop.csv", "pipe.csv", "x" * 5000, "a.wav/b")),
        (header + row.format("a.wav") + '2,a.wav,"never closed,t,happy,sad,s,en,x\n', "row 3: not a readable"),
        ("\ufeff" + header + row.format("a.wav").replace("x,t", "x\0,t"), "row 2, column text: 'x.x00' holds control"),
        (":".join(COLUMNS) + "\n", "column sample_id, audio, .* is missing"),
        (",".join((*COLUMNS, "audio")) + "\n", "column audio is there twice"),
        (header + "1,a.wav,x,t,happy,sad,s\n", "row 2: has 7 fields, the header has 9"),
        (header.encode("utf-16"), "save it as UTF-8"),
    ):
        (folder / "m.csv").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        with pytest.raises(InputError, match=message):
            read_manifest(folder / "m.csv")


# Audio -------------------------------------------------------------------------------------------------------------------

KINDS = (
    *(("wav", s) for s in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")),
    *(("flac", s) for s in ("PCM_S8", "PCM_16", "PCM_24")),
    *(("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III")),
)
RATES = {"OPUS": (8000, 16_000, 48_000), "MPEG_LAYER_III": (8000, 22_050, 44_100)}


@st.composite
def sounds(draw: Any) -> tuple[bytes, float, float]:
    """Draw an audio file: its bytes, how long it is and how loud."""
    suffix, subtype = draw(st.sampled_from(KINDS))
    rate = draw(st.sampled_from(RATES.get(subtype, (8000, 11_025, 16_000, 44_100, 96_000))))
    channels = draw(st.integers(1, 2 if suffix in ("mp3", "ogg") or "ADPCM" in subtype else 6))
    seconds = draw(st.floats(0.15, 1.5))
    peak, start = draw(st.floats(0.05, 0.9)), draw(st.sampled_from((0.0, 0.05)))
    wave = peak * np.sin(2 * np.pi * 300 * np.arange(int(seconds * rate)) / rate)
    wave = np.concatenate([np.zeros(int(start * rate)), wave])
    file = io.BytesIO()
    soundfile.write(file, np.repeat(wave[:, None], channels, axis=1), rate, format=suffix.upper(), subtype=subtype)
    return file.getvalue(), len(wave) / rate, peak


@fuzz(whole=250, short=25)
@given(sounds())
def test_sound_of_any_kind_is_heard_whole(folder: Path, drawn: tuple[bytes, float, float]) -> None:
    content, seconds, peak = drawn
    path = folder / "sound"  # what it is stands in the file, whatever its name
    path.write_bytes(content)
    wave = load_audio(path, RATE)
    assert (
        wave.dtype == np.float32 and abs(len(wave) / RATE - seconds) < 0.1
    )  # codecs fill up their last frame, IMA ADPCM to 0.093 s
    assert abs(np.quantile(np.abs(wave), 0.98) - peak) < 0.05 + 0.25 * peak


@fuzz(whole=250, short=40)
@given(st.data())
def test_broken_sound_is_heard_or_refused(folder: Path, data: st.DataObject) -> None:
    content, seconds, _ = data.draw(sounds())
    file = bytearray(content)
    fault = data.draw(st.sampled_from(("cut", "flip", "header", "size", "rate", "noise", "swap")))
    if fault == "cut":
        del file[data.draw(st.integers(0, len(file) - 1)) :]
    elif fault in ("flip", "header"):
        for _ in range(data.draw(st.integers(1, 20))):
            where = data.draw(st.integers(0, len(file) - 1 if fault == "flip" else min(len(file), 80) - 1))
            file[where] = data.draw(st.integers(0, 255))
    elif fault in ("size", "rate") and file[:4] == b"RIFF":
        where = file.index(b"data") + 4 if fault == "size" else file.index(b"fmt ") + 12
        file[where : where + 4] = data.draw(st.integers(0, 2**32 - 1)).to_bytes(4, "little")
    elif fault == "noise":
        file = bytearray(data.draw(st.binary(max_size=200)))
    else:
        half = len(file) // 2
        file = file[half:] + file[:half]
    path = folder / "broken"
    path.write_bytes(bytes(file))
    try:
        wave = load_audio(path, RATE)
    except BadClip as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        return
    assert wave.dtype == np.float32 and np.isfinite(wave).all() and len(wave) >= 0.09 * RATE
    if fault == "cut":  # an end that is missing never goes unnoticed
        assert abs(len(wave) / RATE - seconds) < 0.08


# Paths, labels, environment -----------------------------------------------------------------------------------------------

texts = st.text(st.one_of(letters, st.sampled_from("~$#% *?[]{}'\"\\.:-")), min_size=1, max_size=20)


@fuzz(whole=2000, short=60)
@given(texts)
def test_a_path_is_one_path_or_one_line(folder: Path, text: str) -> None:
    try:
        found = given_path(text)
    except argparse.ArgumentTypeError as error:
        assert "\n" not in str(error)
        return
    assert found.is_absolute() and given_path(str(found)) == found
    assert "\n" not in why_missing(folder / text.lstrip("/"))


@fuzz(whole=500, short=15)
@given(
    st.lists(
        st.one_of(name, st.sampled_from(("01", "1", "True", "none", "NA", "nan", "inf", "1e3", "", "-0", "0x1", "null"))),
        min_size=1,
    )
)
def test_text_in_a_table_is_read_to_the_letter(folder: Path, labels: list[str]) -> None:
    path = folder / "table.csv"
    rows = [{"sample_id": x, "winner": x, "prosody_label": x, "recipient_speaker": x, "n": 1.5, "m": None} for x in labels]
    pd.DataFrame(rows).to_csv(path, index=False)
    found = read_table(path)
    assert all(found[column].tolist() == labels for column in ("sample_id", "winner", "prosody_label", "recipient_speaker"))
    assert found.n.tolist() == [1.5] * len(labels) and found.m.isna().all()


@fuzz(whole=500, short=15)
@given(st.lists(st.one_of(name, texts), min_size=1, max_size=4))
def test_other_peoples_text_is_no_markup(labels: list[str]) -> None:
    text = "\n\n".join((table_of(["a"], [[plain(x)] for x in labels]), *map(plain, labels), fenced("\n".join(labels))))
    page = MarkdownIt("commonmark", {"html": False}).enable("table")
    inner = [t for token in page.parse(text) for t in (token.children or [])]
    assert {t.type for t in inner} <= {"text", "text_special", "softbreak", "code_inline"}
    said = html.unescape(re.sub("<[^>]*>", "", page.render(text)))
    assert all(" ".join(x.split()) in " ".join(said.split()) for x in labels)


@fuzz(whole=500, short=30)
@given(
    st.dictionaries(
        st.sampled_from(("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")),
        st.one_of(st.sampled_from(("", "0", "1", "2", "-1", "1.0", "nan", "٣")), texts),
    )
)
def test_what_launchers_leave_is_a_number_of_processes_or_one_line(told: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for key in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(key, raising=False)
        for key, value in told.items():
            patch.setenv(key, value)
        try:
            assert 1 <= processes.processes_here() <= processes.count()
        except InputError as error:
            assert "\n" not in str(error) and "unset WORLD_SIZE" in str(error)
