"""JSONL files: validated on write and on read, written atomically or chunk by chunk.

Reading and writing stream: a file of millions of records needs the memory of one.
"""

import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dpa.artefacts.outputs import Fingerprint, atomic, claim, sidecar_path
from dpa.errors import InputError, writing
from dpa.runtime.reading import bounded_lines, open_regular, read_json

R = TypeVar("R")

#: What Windows programs put before UTF-8.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: The end of a key, and one with spaces in it.
KEY = re.compile(rb'(?<!\\)"\s*:')
SPACED = re.compile(rb'"\s+:')


def check_finite(rewards: list[float], attributes: dict[str, float]) -> None:
    """Refuse NaN and infinite scores, which would win or lose every comparison silently."""
    if not all(map(math.isfinite, rewards)) or not all(map(math.isfinite, attributes.values())):
        raise ValueError(f"NaN or infinite reward in {attributes or rewards}")


def decode_lines(path: Path, type: type[R], *, counted: bool = True) -> Iterator[R]:
    """Decode and validate a JSONL file line by line (`type` may be `dict` for foreign files).

    Files ending in .gz are decompressed. Raises InputError naming the file and the line, also for
    one of more than reading.MAX_LINE bytes, and when the file has a sidecar that counts other than
    as many records: some were lost. With `counted` off, the caller looks at the sidecar.
    """
    decoder = msgspec.json.Decoder(type)
    number = 0
    for number, line in enumerate(read_lines(path), 1):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        try:
            record = decoder.decode(text)
        except RecursionError:
            raise InputError(f"{path}:{number}: nested too deeply; leave it out") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError(f"{path}:{number}: {error}{_advice(path, line)}") from None
        if type is dict:
            check_keys(text, record, f"{path}:{number}")
        yield record
    if counted:
        _check_count(path, number)


def read_lines(path: Path) -> Iterator[bytes]:
    """A file's lines; files ending in .gz are decompressed. Raises InputError as decode_lines."""
    with open_regular(path) as opened:
        file: Any = gzip.GzipFile(fileobj=opened) if path.suffix.lower() == ".gz" else opened
        lines = bounded_lines(file, path)
        while True:
            try:
                line = next(lines, None)
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(f"{path}: cannot be read: {error}") from None
            if line is None:
                return
            yield line


def check_keys(text: bytes, value: Any, place: str) -> None:
    """Refuse JSON in which a key is given twice, of which `value`, its content, has but the last.

    Colons behind quotes are counted first, and looked at closely only where there are more of them
    than keys: inside of a text a quote is escaped.
    """
    keys = _keys(value)
    plain = text.count(b'":') == keys and not SPACED.search(text)
    if plain or len(KEY.findall(text)) <= keys:
        return

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
            raise InputError(f"{place}: key {twice!r} is given twice; remove or rename one")
        return found

    json.loads(text, object_pairs_hook=unique)


def _keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if isinstance(value, list) else 0


def _check_count(path: Path, found: int) -> None:
    if not sidecar_path(path).exists():
        return
    try:
        sidecar = read_json(sidecar_path(path))
    except InputError as error:
        raise InputError(f"{error}; delete it: all it has to say is what {path.name} is") from None
    if not isinstance(sidecar, dict):  # not one of ours
        return
    expected = sidecar.get("records", found)
    if expected != found:
        raise InputError(
            f"{path}: has {found} records, but its sidecar counts {expected}: some were lost or "
            "added since it was written; delete the file and rerun, or only its sidecar if you "
            "edited it"
        )


def _advice(path: Path, line: bytes) -> str:
    """What is probably wrong with a line that does not decode, or what to do about it."""
    if not line.strip():
        return " (the line is blank: delete it)"
    if b"NaN" in line or b"Infinity" in line:
        return " (JSON has no NaN or Infinity: write null)"
    if not line.endswith(b"\n"):
        return " (the line is truncated: make the file again)"
    if sidecar_path(path).exists():
        return "; a rule made this file: delete it and rerun"
    return "; correct the line or leave it out"


def read_jsonl(path: Path, type: type[R]) -> list[R]:
    """All records of a file, validated. Raises InputError naming the file and the line."""
    return list(decode_lines(path, type))


def encode(record: Any) -> bytes:
    """One JSONL line, newline included, validated against the record's type.

    Raises ValueError for values that the type forbids, NaN (JSON has none) among them.
    """
    line = msgspec.json.encode(record)
    if isinstance(record, dict):
        check_finite([v for v in record.values() if isinstance(v, float)], {})
    else:
        try:
            # msgspec checks types and ranges only when it decodes; NaN has become null by now.
            msgspec.json.decode(line, type=type(record))
        except msgspec.ValidationError as error:
            raise ValueError(f"invalid {type(record).__name__}: {error} in {line!r:.200}") from None
    return line + b"\n"


def write_jsonl(path: Path, records: Iterable[Any]) -> int:
    """Write records atomically (the file appears complete or not at all); returns their number."""
    count = 0
    with atomic(path) as partial, open(partial, "wb") as file:
        for record in records:
            file.write(encode(record))
            count += 1
    return count


class ChunkedWriter:
    """A JSONL file written chunk by chunk that survives a kill.

    Chunks are appended to `<path>.partial` and synced; a rerun with the same `fingerprint`
    (sidecars.fingerprint) keeps the complete chunks and resumes after them; any other partial file
    is discarded, with a warning that says why. `finish` renames the file into place. Raises InUse
    when another process is writing the same file, InputError when the file must not be replaced.
    """

    def __init__(
        self,
        path: Path,
        type: type[msgspec.Struct],
        chunk_sizes: list[int],
        fingerprint: Fingerprint,
    ):
        self.path = path
        self.claim = claim(path)
        self.partial = self.claim.partial
        self.chunk_sizes = chunk_sizes
        self.done = end = 0
        with writing(path):
            resumes = self.claim.resume(fingerprint)
            if resumes and path.exists() and not self.partial.exists():
                os.replace(path, self.partial)  # complete, but killed before its sidecar was
            self.file = self.claim.file()
            if resumes:
                self.done, end = self._complete_chunks(type)
            self.file.truncate(end)

    def _complete_chunks(self, type: type[msgspec.Struct]) -> tuple[int, int]:
        """(number of complete chunks, byte offset of their end) in the partial file."""
        decoder = msgspec.json.Decoder(type)
        offset = end = chunks = records = 0
        with open(self.partial, "rb") as file:
            for line in file:
                if chunks == len(self.chunk_sizes) or not line.endswith(b"\n"):
                    break
                try:
                    decoder.decode(line)
                except msgspec.MsgspecError:
                    break
                offset += len(line)
                records += 1
                if records == self.chunk_sizes[chunks]:
                    chunks, records, end = chunks + 1, 0, offset
        return chunks, end

    def write(self, records: list[Any]) -> None:
        """Append the next chunk, durable when the call returns."""
        if len(records) != self.chunk_sizes[self.done]:
            raise ValueError(
                f"{self.path}: chunk {self.done} has {len(records)} records, "
                f"expected {self.chunk_sizes[self.done]}"
            )
        with writing(self.path):
            self.file.write(b"".join(map(encode, records)))
            self.file.flush()
            os.fsync(self.file.fileno())
        self.done += 1

    def finish(self, sidecar: Callable[[], None] = lambda: None) -> None:
        """Rename the complete file into place, and have its sidecar written.

        A job that is killed between the two finds the file complete the next time.
        """
        if self.done != len(self.chunk_sizes):
            raise ValueError(f"{self.path}: {self.done} of {len(self.chunk_sizes)} chunks written")
        with writing(self.path):
            self.claim.put_in_place(self.partial)
        sidecar()
        self.file.close()
        self.claim.finish()

    def close(self) -> None:
        """Stop writing; what is done is kept."""
        self.file.close()
        self.claim.release()
