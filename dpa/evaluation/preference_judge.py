"""A scalar judge: any sequence-classification model with one output, by its own chat template.

Every response is scored as if it were alone: batches hold inputs of equal length only, so that
nothing is padded. Published judges differ in their padding token, and where it is also the end
token, padding would move the position at which the score is read.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
from transformers import AutoModelForSequenceClassification

from dpa.artefacts.files import content_hash
from dpa.artefacts.jsonl import ChunkedWriter, decode_lines, read_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import code_version, fingerprint, write_sidecar
from dpa.errors import InputError
from dpa.models import load_model, load_tokenizer
from dpa.records import JudgedSample, Prompt, Sample
from dpa.runtime.log import Progress, log
from dpa.text.control_tokens import chat_controls
from dpa.text.prompts import Conversation, messages

#: Tokens in one forward pass.
TOKENS_PER_BATCH = 16384


DECIMALS = 4


class ScalarJudge:
    """A Bradley-Terry reward model: the higher of two scores wins."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        positions = getattr(model.config, "max_position_embeddings", None)
        self.max_length = min(tokenizer.model_max_length, positions or tokenizer.model_max_length)
        self.cut = 0

    @classmethod
    def load(cls, path: str, revision: str | None = None) -> "ScalarJudge":
        """Load a checkpoint, in float32 on a CPU. Raises InputError when it is no scalar judge."""
        gpu = torch.cuda.is_available()
        try:
            tokenizer = load_tokenizer(path, revision)
            model = load_model(
                AutoModelForSequenceClassification,
                path,
                revision,
                dtype=torch.bfloat16 if gpu else torch.float32,
            )
        except InputError as error:
            raise InputError(f"rewardbench.judge: {error}") from None
        if model.config.num_labels != 1:
            raise InputError(
                f"rewardbench.judge: {path} has {model.config.num_labels} outputs; a scalar judge "
                "has one"
            )
        if tokenizer.chat_template is None:
            raise InputError(f"rewardbench.judge: {path}: its tokenizer has no chat template")
        return cls(model.to("cuda" if gpu else "cpu"), tokenizer, path)

    def token_ids(self, prompt: Conversation, response: str) -> list[int]:
        """The judge's input, its end kept when it is too long."""
        turns = chat_controls(self.tokenizer).neutralise_messages(messages(prompt, None, response))
        text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        # The tokenizer adds the begin token itself.
        if self.tokenizer.bos_token and self.tokenizer("")["input_ids"][:1] == [
            self.tokenizer.bos_token_id
        ]:
            text = text.removeprefix(self.tokenizer.bos_token)
        ids = self.tokenizer(text, verbose=False)["input_ids"]
        if len(ids) > self.max_length:
            if not self.cut:
                log.warning("inputs of more than %d tokens lose their beginning", self.max_length)
            self.cut += 1
            ids = ids[-self.max_length :]
        return ids

    @torch.inference_mode()
    def scores(self, pairs: Sequence[tuple[Conversation, str]]) -> list[float]:
        """A score for each (prompt, response), the same whatever is scored with it."""
        inputs = [self.token_ids(*pair) for pair in pairs]
        found = [0.0] * len(inputs)
        by_length = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
        for length, group in groupby(by_length, key=lambda i: len(inputs[i])):
            same = list(group)
            # Without a padding token transformers refuses batches, even of equal lengths.
            padless = self.model.config.pad_token_id is None
            step = 1 if padless else max(1, TOKENS_PER_BATCH // length)
            for start in range(0, len(same), step):
                batch = same[start : start + step]
                ids = torch.tensor([inputs[i] for i in batch], device=self.model.device)
                mask = torch.ones_like(ids)
                logits = self.model(input_ids=ids, attention_mask=mask).logits[:, 0].float()
                for i, score in zip(batch, logits.tolist(), strict=True):
                    found[i] = round(score, DECIMALS)
        return found


#: Responses that are judged together, and that a killed job judges again.
RESPONSES_PER_CHUNK = 64


class ScalarScorer(Protocol):
    """What is needed of a judge: dpa.evaluation.preference_judge.ScalarJudge or GoldJudge."""

    def scores(self, pairs: Sequence[tuple[Conversation, str]]) -> list[float]:
        """A score for each (prompt, response)."""
        ...


class GoldJudge:
    """The quickstart's gold helpfulness behind the interface of a scalar judge."""

    def scores(self, pairs: Sequence[tuple[Conversation, str]]) -> list[float]:
        from dpa.quickstart.world import gold_rewards

        return [round(gold_rewards(str(prompt), response)[0], 4) for prompt, response in pairs]


def judge_samples(
    judge: ScalarScorer,
    samples: Path,
    prompts: Path,
    output: Path,
    known: str,
    sidecar: Callable[[int], None],
) -> int:
    """Write a JudgedSample for each Sample, in the same order, and the `sidecar`, which is given
    their number; returns it.

    Resumes behind the chunks that a killed job with the same fingerprint `known` has judged.
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
    for chunk in chunks[writer.done :]:
        scores = judge.scores([(texts[r.prompt_id], r.response) for r in chunk])
        writer.write(
            [
                JudgedSample(**msgspec.structs.asdict(record), score=score)
                for record, score in zip(chunk, scores, strict=True)
            ]
        )
        progress.advance(len(chunk))
    writer.finish(lambda: sidecar(len(records)))
    return len(records)


def judge_file(
    samples: Path, prompts: Path, output: Path, *, gold: str | None, model: tuple[str, str | None]
) -> None:
    """`judge_samples` by the gold scorer, or by a model given as (path, revision); with sidecar."""
    judge: ScalarScorer
    inputs: list[Path | str] = [samples, prompts]
    if gold is not None:
        judge = GoldJudge()
        known = fingerprint(gold, code_version(), [content_hash(Path(i)) for i in inputs])
    else:
        from dpa.evaluation.preference_judge import ScalarJudge

        judge = ScalarJudge.load(*model)
        inputs.insert(0, model[0])
        known = fingerprint(*model, [content_hash(Path(i)) for i in inputs])

    def sidecar(rows: int) -> None:
        write_sidecar(output, inputs, RowCounts.none(rows), judge=gold or f"{model[0]}@{model[1]}")

    rows = judge_samples(judge, samples, prompts, output, known, sidecar)
    log.info("judged %d responses", rows)
