"""Check the length that an audio file's header claims against its bytes.

Who writes to a pipe cannot go back and fill a length in, and leaves a placeholder; a decoder that believes it stops early, or
takes the file for cut. Formats: RIFF and RF64 (EBU Tech 3306), FLAC (RFC 9639), Ogg (RFC 3533), MPEG audio (ISO 11172-3).
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

_PLACEHOLDER = 0x7FFF_0000  # bytes: RIFF's largest lengths, near 2 and 4 GiB, stand for "not known", if there is less
_PAGE = 65_536  # bytes: an Ogg page is no longer
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # Hz by MPEG version bits
_KBITS = {  # a second, of layer III; of MPEG 1, and of MPEG 2 and 2.5
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def with_its_length(path: Path) -> Path | io.BytesIO:
    """Return what a decoder may read a clip from: its file, or where the header leaves the length open a copy that has it."""
    with open(path, "rb") as file:
        head = file.read(4)
        if head in (b"RIFF", b"RIFX", b"RF64") and (found := _data_of(file)) is not None and found.open:
            return _filled(file, found)
        if head == b"fLaC":
            return _flac_with_total(file) or path
    return path


def missing_of_riff(path: Path) -> str:
    """Say how many bytes of samples a header claims that are not there; "" where all are, or it claims none."""
    with open(path, "rb") as file:
        found = _data_of(file)
    if found is None or found.open or found.claimed <= found.there:
        return ""
    return f"its header claims {found.claimed} bytes of samples, {found.there} are there"


@dataclass(frozen=True)
class _Data:
    """Where the samples of a RIFF file start, how many bytes of them are claimed and there; `ds64` is where an RF64 says so."""

    start: int
    claimed: int
    there: int
    order: Literal["little", "big"]
    ds64: int | None
    open: bool


def _data_of(file: BinaryIO) -> _Data | None:
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    start = file.read(12)
    order: Literal["little", "big"] = "big" if start[:4] == b"RIFX" else "little"
    whole, ds64, large = int.from_bytes(start[4:8], order), None, 0
    while len(head := file.read(8)) == 8:
        at, length = file.tell(), int.from_bytes(head[4:], order)
        if head[:4] == b"ds64":
            ds64, large = at, int.from_bytes(file.read(16)[8:16], order)
        if head[:4] == b"data":
            there = size - at
            if ds64 is not None and length == 0xFFFF_FFFF:
                return _Data(at, large, there, order, ds64, there > 0 and (large == 0 or large >= 1 << 62))
            unknown = there < length >= _PLACEHOLDER or (length == 0 < there and whole + 8 != size)
            return _Data(at, length, there, order, None, unknown)
        file.seek(at + length + length % 2)
    return None


def _filled(file: BinaryIO, found: _Data) -> io.BytesIO:
    file.seek(0)
    data = bytearray(file.read())
    whole = len(data) - 8
    if found.ds64 is None:
        data[4:8], data[found.start - 4 : found.start] = (n.to_bytes(4, found.order) for n in (whole, found.there))
    else:
        data[found.ds64 : found.ds64 + 16] = whole.to_bytes(8, found.order) + found.there.to_bytes(8, found.order)
    return io.BytesIO(bytes(data))


def _flac_with_total(file: BinaryIO) -> io.BytesIO | None:
    """Return a FLAC with its number of samples in the header, where that is left open; else, or where it has no frame, None.

    The last frame's head has its number, or that of its first sample, and how many samples it holds.
    """
    file.seek(0)
    data = bytearray(file.read())
    if len(data) < 42 or data[21] & 15 or any(data[22:26]):
        return None
    block, first = int.from_bytes(data[8:10], "big"), 4
    while first + 4 <= len(data):  # past the blocks of metadata
        last, length = data[first] & 128, int.from_bytes(data[first + 1 : first + 4], "big")
        first += 4 + length
        if last:
            break
    sync, like, at = bytes(data[first : first + 2]), data[first + 3 : first + 4], len(data)
    while (at := data.rfind(sync, first, at)) >= 0:
        if data[at + 3 : at + 4] == like and (samples := _samples_to(data[at : at + 17], block)) is not None:
            data[21] |= samples >> 32 & 15
            data[22:26] = (samples & 0xFFFF_FFFF).to_bytes(4, "big")
            return io.BytesIO(bytes(data))
    return None


def _samples_to(head: bytearray, block: int) -> int | None:
    """Return how many samples a FLAC has up to the end of the frame with this head; None where it is no head of a frame."""
    if len(head) < 10:
        return None
    ones = next((i for i in range(8) if not head[4] << i & 128), 8)  # the number is coded as UTF-8 codes letters
    more = max(0, ones - 1)
    if ones == 1 or ones == 8 or any(b >> 6 != 2 for b in head[5 : 5 + more]):
        return None
    number = head[4] & (255 >> (ones + 1) if ones else 127)
    for byte in head[5 : 5 + more]:
        number = number << 6 | byte & 63
    at, code = 5 + more, head[2] >> 4
    if code in (6, 7):
        size = int.from_bytes(head[at : at + code - 5], "big") + 1
        at += code - 5
    else:
        size = 192 if code == 1 else 576 << code - 2 if 2 <= code <= 5 else 256 << code - 8 if code >= 8 else 0
    at += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if not size or at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    return number + size if head[1] & 1 else number * block + size


def _crc8(data: bytearray) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 7) & 255 if crc & 128 else crc << 1
    return crc


def closed_ogg(path: Path) -> bool:
    """Return whether an Ogg file ends with a whole page that is marked as the last (RFC 3533, section 6)."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _PAGE))
        end = file.read()
    page = end[end.rfind(b"OggS") :]
    if not page.startswith(b"OggS") or len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def missing_of_mp3(path: Path, claimed: int, read: int) -> str:
    """Say what an MP3 lacks of the samples that its header claims, or without such a header of those that its frames hold."""
    data = path.read_bytes()
    start = _behind_tags(data)
    while start < len(data) and _frame(data, start) is None:
        start += 1
    if (frame := _frame(data, start)) is None:
        return "it has no length in its header, and no frames that can be counted"
    if any(mark in data[start : start + frame[0]] for mark in (b"Xing", b"Info", b"VBRI")):
        return f"its header claims {claimed} samples, {read} are there" if claimed > read else ""
    at, samples, each = start, 0, frame[1]
    while (frame := _frame(data, at)) is not None:
        if at + frame[0] > len(data):
            return "its last frame is cut"
        at, samples = at + frame[0], samples + frame[1]
    if read < samples - 2 * each:  # the decoder stops at a guess from the file's size; at the ends it may leave a frame out
        return f"it has no length in its header, and {read} of its {samples} samples were read"
    return ""


def _behind_tags(data: bytes) -> int:
    """Return where an MP3 starts behind ID3v2 tags, which may hold pictures."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        sizes = data[at + 6 : at + 10]
        at += 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(sizes)) + (10 if data[at + 5] & 16 else 0)
    return at


def _frame(data: bytes, at: int) -> tuple[int, int] | None:
    """Return how many bytes and samples the frame of layer III at a place has; None where there is none."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 255 or head[1] >> 5 != 7 or head[1] >> 1 & 3 != 1:
        return None
    version, bits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3:
        return None
    samples = 1152 if version == 3 else 576
    return samples // 8 * _KBITS[version == 3][bits - 1] * 1000 // _RATES[version][rate] + (head[2] >> 1 & 1), samples
