"""Whether a write-ahead log belongs to the file that it lies beside, before SQLite is asked.

A process that died leaves its log behind. If a backup is then copied over the file, SQLite lays the
log of the one over the other: what was restored is gone, and the tables are damaged. Neither file
names the other, but what both say of page 1 can contradict:

* SQLite counts the transactions that write page 1 ("change counter") in it, and all versions of
  it in a log go on from the file's. So the file's count is at most one below the first in the log,
  and at most the last, which a checkpoint may have moved already.
* The schema's version never falls. ``VACUUM INTO`` counts it on in what it writes.
* A log without a page 1 has left the number of pages as it was.

A good log never contradicts, and not each foreign one does: a copy of the file from the same count
passes. Only what SQLite would take for valid is believed.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from director_db.errors import SchemaError
from director_db_sqlite.file import file_id, log_bytes, log_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director_db_sqlite.file import FileId

_FORMAT: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100
_LARGEST_PAGE: Final = 65536
_LOG_HEADER: Final = struct.Struct(">8I")
_FRAME_HEADER: Final = struct.Struct(">6I")
# The last bit of the magic number says in which order of bytes checksums were made.
_MAGIC: Final = 0x377F0682

# A frame of 4 KiB takes 75 microseconds. Page 1 is written whenever the file grows.
_MOST_FRAMES_TO_VERIFY: Final = 512

# Closing a descriptor drops every lock that this process has on its file. So where somebody has
# opened the file in the meantime, ours stay open.
_kept: list[int] = []


class _PageOne(NamedTuple):
    counter: int
    pages: int
    schema: int


class _Log(NamedTuple):
    """The header of a log; the salts are new whenever it starts anew."""

    page_bytes: int
    salts: tuple[int, int]
    checksum: tuple[int, int]
    order: str


class _Frame(NamedTuple):
    """The header of a page in a log, and where the page begins."""

    at: int
    page: int
    pages_after_commit: int
    checksum: tuple[int, int]


def refuse_log_of_another(path: str) -> None:
    """Refuse a file whose log was written for another one, where that can be told.

    Nothing is read where this process has the file open: who opened it has seen the log already.

    Raises:
        SchemaError: the log belongs to another file; nothing was changed.
    """
    names = (os.path.realpath(path), log_path(path))
    ids = {file_id(name) for name in names}
    if not hasattr(os, "pread") or None in ids or not log_bytes(path) or _descriptors(ids):
        return
    opened: list[int] = []
    try:
        opened += [os.open(name, os.O_RDONLY | os.O_CLOEXEC) for name in names]
        fault = _contradiction(*opened)
    except OSError:
        return  # SQLite will tell.
    finally:
        if _descriptors(ids) - set(opened):
            _kept.extend(opened)
        else:
            for descriptor in opened:
                os.close(descriptor)
    if fault is not None:
        message = (
            f"{names[1]} is not the log of {path}: {fault}. It seems that a backup was copied over "
            "the file and the old log left there; SQLite would lay it over the backup and damage "
            f"that. Nothing was changed. Stop every process that uses the file, and delete "
            f"{names[1]} and {names[0]}-shm."
        )
        raise SchemaError(message)


def _descriptors(ids: set[FileId | None]) -> set[int]:
    """Return the descriptors of this process for some files; one that cannot be if unknown."""
    found = set()
    try:
        for name in os.listdir("/dev/fd"):  # noqa: PTH208 - the names are numbers
            with contextlib.suppress(OSError):  # The one that lists them is closed by now.
                status = os.fstat(int(name))
                if (status.st_dev, status.st_ino) in ids:
                    found.add(int(name))
    except OSError:
        return {-1}
    return found


def _contradiction(file: int, log: int) -> str | None:
    """Return in what a file and a log contradict each other."""
    header = _header(log)
    if header is None:
        return None
    start = os.pread(file, _HEADER_BYTES, 0)
    stored = _page_one(start)
    if stored is None:
        return None
    fault = _fault(log, header, stored, int.from_bytes(start[16:18]))
    # If somebody has started it anew meanwhile, the two were not read of one moment.
    return fault if _header(log) == header else None


def _fault(log: int, header: _Log, stored: _PageOne, page_bytes: int) -> str | None:
    if (page_bytes if page_bytes > 1 else _LARGEST_PAGE) != header.page_bytes:
        return f"its pages are of {header.page_bytes:,} bytes"
    frames = list(_frames(log, header))
    ones = [index for index, frame in enumerate(frames) if frame.page == 1]
    commits = (index for index, frame in enumerate(frames) if frame.pages_after_commit)
    needed = ones[0] if ones else next(commits, None)
    if needed is None or not _are_valid(log, header, frames[: needed + 1]):
        return None
    if not ones:
        found = frames[needed].pages_after_commit
        if found == stored.pages:
            return None
        return f"it was written for {found:,} pages, and the file has {stored.pages:,}"
    logged = [_page_one(os.pread(log, _HEADER_BYTES, frames[index].at)) for index in ones]
    known = [one for one in logged if one is not None]
    if logged[0] is None:
        return None
    first, last = logged[0].counter, max(one.counter for one in known)
    if not first - 1 <= stored.counter <= last:
        return f"it is of changes {first:,} to {last:,}, and the file is at {stored.counter:,}"
    if stored.schema > max(one.schema for one in known):
        return "its schema is older than the file's"
    return None


def _page_one(start: bytes) -> _PageOne | None:
    if len(start) < _HEADER_BYTES or not start.startswith(_FORMAT):
        return None
    counter, pages = struct.unpack_from(">2I", start, 24)
    (schema,) = struct.unpack_from(">I", start, 40)
    (valid_for,) = struct.unpack_from(">I", start, 92)
    # Else the number of pages is not to be relied on: a SQLite from before 2010 wrote it last.
    return _PageOne(counter, pages, schema) if counter == valid_for else None


def _header(log: int) -> _Log | None:
    start = os.pread(log, _LOG_HEADER.size, 0)
    if len(start) < _LOG_HEADER.size:
        return None
    magic, _, page_bytes, _, salt_1, salt_2, sum_1, sum_2 = _LOG_HEADER.unpack(start)
    order = ">" if magic & 1 else "<"
    if magic & ~1 != _MAGIC or _checksum(start[:24], order, (0, 0)) != (sum_1, sum_2):
        return None
    return _Log(page_bytes, (salt_1, salt_2), (sum_1, sum_2), order)


def _frames(log: int, header: _Log) -> Iterator[_Frame]:
    """Yield the frames since the log last started anew; of the last ones, perhaps torn ones."""
    at = _LOG_HEADER.size
    while len(start := os.pread(log, _FRAME_HEADER.size, at)) == _FRAME_HEADER.size:
        page, commit, salt_1, salt_2, sum_1, sum_2 = _FRAME_HEADER.unpack(start)
        if (salt_1, salt_2) != header.salts:
            return
        at += _FRAME_HEADER.size
        yield _Frame(at, page, commit, (sum_1, sum_2))
        at += header.page_bytes


def _are_valid(log: int, header: _Log, frames: list[_Frame]) -> bool:
    """Say whether SQLite would believe these frames, the first ones of a log."""
    if len(frames) > _MOST_FRAMES_TO_VERIFY:
        return False
    checksum = header.checksum
    for frame in frames:
        start = os.pread(log, 8, frame.at - _FRAME_HEADER.size)
        page = os.pread(log, header.page_bytes, frame.at)
        if len(page) < header.page_bytes:
            return False
        checksum = _checksum(page, header.order, _checksum(start, header.order, checksum))
        if checksum != frame.checksum:
            return False
    return True


def _checksum(data: bytes, order: str, before: tuple[int, int]) -> tuple[int, int]:
    one, two = before
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
