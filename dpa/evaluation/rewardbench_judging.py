"""A policy's responses to RewardBench's prompts, judged. The gold scorer needs no torch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from dpa.artefacts.jsonl import ChunkedWriter, decode_lines, read_jsonl
from dpa.artefacts.outputs import Fingerprint
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import fingerprint, write_sidecar
from dpa.config.chat import ModelsConfig
from dpa.errors import InputError
from dpa.models import AnyModel, ModelRef, download
from dpa.records import JudgedSample, Prompt, Sample
from dpa.reward.scorer import FEWEST_INPUTS
from dpa.runtime.gpus import take_gpu
from dpa.runtime.log import Progress, log
from dpa.runtime.watchdog import Watchdog
from dpa.text.prompts import Conversation

#: Responses that are judged together, and that a killed job judges again.
RESPONSES_PER_CHUNK = 64


class ResponseJudge(Protocol):
    """What is needed of a judge: preference_judge.PreferenceJudge or GoldJudge."""

    def scores(self, pairs: Sequence[tuple[Conversation, str]]) -> list[float]:
        """A score for each (prompt, response)."""
        ...


class GoldJudge:
    """The quickstart's gold helpfulness in the place of a judge."""

    def scores(self, pairs: Sequence[tuple[Conversation, str]]) -> list[float]:
        from dpa.quickstart.world import gold_rewards

        return [round(gold_rewards(str(prompt), response)[0], 4) for prompt, response in pairs]


def judge_samples(
    judge: ResponseJudge,
    samples: Path,
    prompts: Path,
    output: Path,
    known: Fingerprint,
    sidecar: Callable[[int], None],
) -> int:
    """Write a JudgedSample for each Sample, in the same order, and the `sidecar`, which is given
    their number; returns it.

    Resumes after the chunks that a killed job with the same fingerprint `known` has judged.
    """
    texts = {p.prompt_id: p.prompt for p in decode_lines(prompts, Prompt)}
    records = read_jsonl(samples, Sample)
    if foreign := [r for r in records if r.prompt_id not in texts]:
        raise InputError(
            f"{samples}: prompt {foreign[0].prompt_id} is not in {prompts}; the samples belong to "
            "other data: delete them and rerun"
        )
    size = RESPONSES_PER_CHUNK
    chunks = [records[i : i + size] for i in range(0, len(records), size)]
    writer = ChunkedWriter(output, JudgedSample, [len(chunk) for chunk in chunks], known)
    progress = Progress(len(records), "responses", sum(map(len, chunks[: writer.done])))
    judged: list[float] = []
    for chunk in chunks[writer.done :]:
        scores = judge.scores([(texts[r.prompt_id], r.response) for r in chunk])
        judged += scores
        writer.write(
            [
                JudgedSample(**msgspec.structs.asdict(record), score=score)
                for record, score in zip(chunk, scores, strict=True)
            ]
        )
        progress.advance(len(chunk))
    if len(judged) >= FEWEST_INPUTS and len(set(judged)) == 1:
        log.warning(
            "%s: all %d responses have the same score by the judge: nothing can be ranked by it; "
            "look at its checkpoint", output, len(judged),
        )  # fmt: skip
    writer.finish(lambda: sidecar(len(records)))
    return len(records)


def judge_file(
    samples: Path,
    prompts: Path,
    output: Path,
    *,
    gold: str | None,
    model: AnyModel | None,
    models: ModelsConfig | None = None,
) -> None:
    """`judge_samples` by the gold scorer or by a model, with the sidecar."""
    inputs: list[Path | str] = [samples, prompts]
    name = str(gold)
    if model is not None:
        ref = ModelRef.of(model)
        name = str(ref)
        inputs.insert(0, ref.path)

    def sidecar(rows: int) -> None:
        write_sidecar(output, inputs, RowCounts.all_kept(rows), judge=name)

    with open_judge(model, models, output) as judge:
        date = models and str(models.chat_template_date)
        known = fingerprint(inputs, judge=name, date=date)
        rows = judge_samples(judge, samples, prompts, output, known, sidecar)
    log.info("judged %d responses", rows)


@contextmanager
def open_judge(
    model: AnyModel | None, models: ModelsConfig | None, output: Path
) -> Iterator[ResponseJudge]:
    """The judge of a job that writes `output`: the gold scorer, or a model on a GPU of its own and
    under a watchdog."""
    if model is None:
        yield GoldJudge()
        return
    download(model)
    take_gpu()
    from dpa.evaluation.preference_judge import PreferenceJudge

    with Watchdog(f"judging {output}") as watchdog:
        judge = PreferenceJudge.load(model, models)
        judge.on_batch = watchdog.beat
        yield judge
