"""The JSONL records of the pipeline: one schema each, validated on write and on read.

Reading and writing stream: a file of millions of records needs the memory of one.
"""

import fcntl
import gzip
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

import msgspec

from dpa.directions import check_direction
from dpa.errors import InputError, writing
from dpa.provenance import read_sidecar, sidecar_path

Score = Annotated[float, msgspec.Meta(ge=0, le=100)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Turn(msgspec.Struct, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all records: unknown fields are refused, absent optional fields are left out."""


class Prompt(Record):
    """A line of data/prompts/*.jsonl."""

    prompt_id: str
    prompt: str | list[Turn]
    source: str


class Rating(Record):
    """A line of data/ratings.jsonl; an attribute that was not rated is absent."""

    prompt_id: str
    prompt: str | list[Turn]
    response: str
    attributes: dict[str, Score]
    dataset: str
    split: Literal["train", "validation"]


class Annotation(Record):
    """An original response of the prompt data with the reward model's outputs (unclipped)."""

    prompt_id: str
    prompt: str | list[Turn]
    response: str
    attributes: dict[str, float]
    rewards: list[float]
    split: Literal["train", "validation"]

    def __post_init__(self) -> None:
        check_finite(self.rewards, self.attributes)


class Sample(Record, kw_only=True):
    """A line of sampled/{shard}.jsonl: one response of a policy to a prompt.

    Exactly one of `direction` (unit vector, one weight per objective) and `condition` (SteerLM's
    integers, one per objective) is given; neither for a policy that takes no steering.
    """

    prompt_id: str
    direction_index: Annotated[int, msgspec.Meta(ge=-1)]
    direction: list[float] | None = None
    condition: list[Annotated[int, msgspec.Meta(ge=0, le=100)]] | None = None
    sample_index: Count
    seed: Count
    response: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: Count
    response_tokens: Count

    def __post_init__(self) -> None:
        if self.direction is not None:
            if self.condition is not None:
                raise ValueError("both a direction and a condition")
            check_direction(self.direction, len(self.direction))


class ScoredSample(Sample, kw_only=True):
    """A line of scored/{shard}.jsonl: all reward-model outputs, and one reward per objective."""

    attributes: dict[str, float]
    rewards: list[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite(self.rewards, self.attributes)


class JudgedSample(Sample, kw_only=True):
    """A line of rewardbench/judged/{policy}.jsonl: the judge's score, higher is better."""

    score: float

    def __post_init__(self) -> None:
        check_finite([self.score], {})


class Choice(Record):
    """A line of rewardbench/items.jsonl: a prompt of a subset, a better and a worse response."""

    item_id: str
    subset: str
    prompt_id: str
    prompt: str | list[Turn]
    chosen: str
    rejected: str


class ScoredChoice(Record):
    """A line of rewardbench/rewards.jsonl: what the reward model makes of a choice."""

    item_id: str
    subset: str
    chosen: dict[str, float]
    rejected: dict[str, float]
    chosen_rewards: list[float]
    rejected_rewards: list[float]

    def __post_init__(self) -> None:
        check_finite(self.chosen_rewards + self.rejected_rewards, {})


class Selected(Record):
    """A line of selected.jsonl: a row of fine-tuning data."""

    prompt_id: str
    prompt: str | list[Turn]
    direction: list[float]
    response: str
    rewards: list[float]
    scalar_reward: float
    candidates: Count
    origin: Literal["sampled", "replay"]

    def __post_init__(self) -> None:
        check_direction(self.direction, len(self.direction))
        if len(self.rewards) != len(self.direction):
            raise ValueError(
                f"{len(self.rewards)} rewards for a direction of {len(self.direction)} weights"
            )


class Pair(Record):
    """A line of pairs.jsonl: two responses to a prompt, the first better by `margin`.

    `direction` is the one that they were compared under, and that the policy is told; null for
    pairs from ratings, whose margin is that of the mean ratings.
    """

    prompt_id: str
    prompt: str | list[Turn]
    direction: list[float] | None
    chosen: str
    rejected: str
    margin: Annotated[float, msgspec.Meta(gt=0)]


R = TypeVar("R")


def check_finite(rewards: list[float], attributes: dict[str, float]) -> None:
    """Refuse NaN and infinite scores, which would win or lose every comparison silently."""
    if not all(map(math.isfinite, rewards)) or not all(map(math.isfinite, attributes.values())):
        raise ValueError(f"NaN or infinite reward in {attributes or rewards}")


def decode_lines(path: Path, type: type[R], *, counted: bool = True) -> Iterator[R]:
    """Decode and validate a JSONL file line by line (`type` may be `dict` for foreign files).

    Files ending in .gz are decompressed. Raises InputError naming the file and the line, and when
    the file has a sidecar that counts other than as many records: some were lost. With `counted`
    off, the caller looks at the sidecar.
    """
    decoder = msgspec.json.Decoder(type)
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            number = 0
            for number, line in enumerate(file, 1):
                try:
                    record = decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise InputError(f"{path}:{number}: {error}{_advice(path, line)}") from None
                yield record
        if counted:
            _check_count(path, number)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _check_count(path: Path, found: int) -> None:
    if not sidecar_path(path).exists():
        return
    told = read_sidecar(path)
    if not isinstance(told, dict):  # not one of ours
        return
    expected = told.get("records", found)
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
        return " (the line is cut off: make the file again)"
    if sidecar_path(path).exists():
        return "; a rule made this file: delete it and rerun"
    return "; correct the line or leave it out"


def read_jsonl(path: Path, type: type[R]) -> list[R]:
    """All records of a file, validated. Raises InputError naming the file and the line."""
    return list(decode_lines(path, type))


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file, at least one. Raises InputError when one is there twice."""
    lines: dict[str, int] = {}
    prompts = []
    for number, prompt in enumerate(decode_lines(path, Prompt), 1):
        first = lines.setdefault(prompt.prompt_id, number)
        if first != number:
            raise InputError(
                f"{path}:{number}: prompt {prompt.prompt_id} is there already, in line {first}; "
                "leave one of them out"
            )
        prompts.append(prompt)
    if not prompts:
        raise InputError(f"{path}: no prompts; give data.train_prompts and data.validation_prompts")
    return prompts


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
    partial = path.with_name(path.name + ".partial")
    count = 0
    try:
        with writing(path), _opened_alone(path, partial) as file:
            file.truncate(0)
            for record in records:
                file.write(encode(record))
                count += 1
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
    except BaseException as error:
        if not isinstance(error, InUse):
            partial.unlink(missing_ok=True)
        raise
    return count


class InUse(InputError):
    """Another process is writing the file."""


def _opened_alone(path: Path, partial: Path) -> BinaryIO:
    """The partial file of `path`, opened to append, and locked until it is closed.

    A process that dies gives its lock back. Raises InUse when another one is writing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(partial, "ab+")  # noqa: SIM115 (the caller closes it)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise InUse(
                f"{path}: another process is writing it; let it finish or end it, then rerun"
            ) from None
        except OSError:
            return file  # a file system without locks
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):
                return file
        except FileNotFoundError:
            pass
        file.close()  # its writer has just moved it into place


class ChunkedWriter:
    """A JSONL file written chunk by chunk that survives a kill.

    Chunks are appended to `<path>.partial` and synced; a rerun with the same `fingerprint`
    (whatever determines the content: parameters and input hashes) keeps the complete chunks and
    continues behind them; any other partial file is discarded. `finish` renames the file
    into place. Raises InUse when another process is writing the same file.
    """

    def __init__(self, path: Path, type: type[Record], chunk_sizes: list[int], fingerprint: str):
        self.path, self.partial = path, path.with_name(path.name + ".partial")
        self.owner = path.with_name(path.name + ".partial.for")
        self.chunk_sizes = chunk_sizes
        end = 0
        self.done = 0
        with writing(path):
            ours = self.owner.exists() and self.owner.read_text() == fingerprint
            if ours and path.exists() and not self.partial.exists():
                os.replace(path, self.partial)  # complete, but killed before its sidecar was
            self.file = _opened_alone(path, self.partial)
            if ours:
                self.done, end = self._complete_chunks(type)
            else:
                self.file.truncate(0)
                self.owner.write_text(fingerprint)
            self.file.truncate(end)

    def _complete_chunks(self, type: type[Record]) -> tuple[int, int]:
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

        Whoever is killed between the two finds the file complete the next time.
        """
        if self.done != len(self.chunk_sizes):
            raise ValueError(f"{self.path}: {self.done} of {len(self.chunk_sizes)} chunks written")
        os.replace(self.partial, self.path)
        sidecar()
        self.owner.unlink(missing_ok=True)
        self.file.close()
