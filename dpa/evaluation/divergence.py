"""How far a policy has moved from the SFT policy: log-probabilities of its samples under both.

Over samples y of the policy p, asked with its direction v, and the SFT policy q, asked without,

    KL(p(.|x, v) || q(.|x)) = E [log p(y|x, v) - log q(y|x)]

and the mean of the difference estimates it without bias; of a single sample it may be negative.
Both probabilities are of softmax(logits / temperature), which y was drawn from: sampling has no
top-k and no top-p that would make it another distribution. y includes its end token; where it was
truncated at max_new_tokens it ends there, as it would under the other policy.

What is known of y is its text. Where a policy wrote it in other tokens than its tokenizer does, the
text's usual tokens stand for them (under both policies), and the sidecar counts such responses.

A killed job resumes after the last batch that it has finished: until the table is whole, the
log-probabilities are in a file for each policy in `<output>.partial`.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from dpa.artefacts.jsonl import ChunkedWriter, decode_lines, read_jsonl
from dpa.artefacts.outputs import Fingerprint, claimed
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import fingerprint, write_sidecar
from dpa.config.chat import ModelsConfig
from dpa.errors import InputError
from dpa.generation.engine import Answered
from dpa.generation.sample import EVALUATION, Steering, request_for
from dpa.models import AnyModel, ModelRef, download, read_end_tokens
from dpa.records import Prompt, Sample
from dpa.runtime.gpus import take_gpu
from dpa.runtime.log import Progress
from dpa.runtime.watchdog import Watchdog
from dpa.text.chat_template import ConversationError
from dpa.text.prompts import messages, read_prompts
from dpa.text.tokenization import ChatTokenizer

#: Most tokens of a forward pass, padding included.
DIVERGENCE_TOKENS = 4096


class LogProbability(msgspec.Struct, forbid_unknown_fields=True):
    """Of a response, in the order of batches."""

    value: float


def measure_divergence(
    output: Path,
    *,
    policy: AnyModel,
    reference: AnyModel,
    samples: Path,
    prompts: Path,
    names: Sequence[str],
    temperature: float,
    models: ModelsConfig | None = None,
) -> None:
    """Write a row per sample of the `policy` (parquet, with sidecar): how likely it is under it,
    and under the `reference`.

    Columns are prompt_id, direction_index, sample_index, tokens, and the sums over that many tokens
    of the natural logarithms, policy_logprob and reference_logprob. `names` are the objectives',
    `temperature` is the samples'; `models` is how chats become tokens (None: as config.yaml says).

    Raises InputError when the models have other tokens or predict NaN, and for greedy samples.
    """
    if temperature == 0:
        raise InputError("temperature 0: greedy samples have no probabilities; sample above it")
    refs = [ModelRef.of(policy), ModelRef.of(reference)]
    chats = [ChatTokenizer.load(ref, models) for ref in refs]
    if chats[0].tokenizer.get_vocab() != chats[1].tokenizer.get_vocab():
        raise InputError(
            f"{refs[1].path}: has other tokens than {refs[0].path}, which has no divergence from "
            "it; give the policy that its training started from"
        )
    ends = read_end_tokens(refs[0], chats[0].tokenizer)
    texts = {prompt.prompt_id: prompt for prompt in read_prompts(prompts)}
    row_counts = RowCounts()
    rows: list[dict] = []
    asked: tuple[list[Answered], list[Answered]] = [], []
    for prompt_id, found in groupby(decode_lines(samples, Sample), lambda s: s.prompt_id):
        group = list(found)
        row_counts.read += len(group)
        if prompt_id not in texts:
            raise InputError(
                f"{samples}: prompt {prompt_id} is not in {prompts}; rerun sample_evaluation"
            )
        try:
            pairs = _tokens(texts[prompt_id], group, chats, ends, names)
        except ConversationError as error:
            row_counts.drop(str(error), rows=len(group))
            continue
        for sample, pair in zip(group, pairs, strict=True):
            for answered, of_model in zip(asked, pair, strict=True):
                answered.append(of_model)
            rows.append(
                {
                    "prompt_id": prompt_id,
                    "direction_index": sample.direction_index,
                    "sample_index": sample.sample_index,
                    "tokens": len(pair[0].response),
                    "retokenised": len(pair[0].response) != sample.response_tokens,
                }
            )
    table = pd.DataFrame(rows)
    inputs: list[Path | str] = [*(ref.path for ref in refs), samples, prompts]
    known = fingerprint(
        inputs,
        policies=[str(ref) for ref in refs],
        names=list(names),
        temperature=temperature,
        tokens_per_batch=DIVERGENCE_TOKENS,
        **chats[0].details(),
    )
    for ref in refs:
        download(ref)
    take_gpu()
    with claimed(output) as mine, Watchdog(f"measuring {output}") as watchdog:
        mine.resume(known)
        progress = Progress(2 * len(rows), "log-probabilities")

        def on_batch(rows: int) -> None:
            watchdog.beat()
            progress.advance(rows)

        for name, ref, answered in zip(("policy", "reference"), refs, asked, strict=True):
            # One model at a time: what sampled it has memory for one.
            part = mine.folder() / f"{name}.jsonl"
            table[f"{name}_logprob"] = _measured(part, ref, answered, temperature, known, on_batch)
        made = mine.folder() / "table.parquet"
        table.drop(columns="retokenised").to_parquet(made, index=False)
        mine.put_in_place(made)
        write_sidecar(
            output,
            inputs,
            row_counts,
            temperature=temperature,
            retokenised=int(table["retokenised"].sum()),
            **chats[0].details(),
        )


def _measured(
    part: Path,
    ref: ModelRef,
    answered: Sequence[Answered],
    temperature: float,
    known: Fingerprint,
    on_batch: Callable[[int], None],
) -> np.ndarray:
    """(len(answered),) log-probabilities under a model; those of batches that are done stay in
    `part`'s partial file."""
    from dpa.generation.likelihood import batches_of, log_probabilities

    batches = batches_of(answered, DIVERGENCE_TOKENS)
    writer = ChunkedWriter(part, LogProbability, [len(batch) for batch in batches], known)
    try:
        on_batch(sum(len(batch) for batch in batches[: writer.done]))
        left = [[answered[row] for row in batch] for batch in batches[writer.done :]]
        for values in log_probabilities(ref, left, temperature):
            writer.write([LogProbability(value) for value in values])
            on_batch(len(values))
    finally:
        writer.close()  # not put in place: what is there can be resumed until the table is whole
    found = np.zeros(len(answered))
    found[[row for batch in batches for row in batch]] = [
        record.value for record in read_jsonl(writer.partial, LogProbability)
    ]
    return found


def _tokens(
    prompt: Prompt,
    samples: Sequence[Sample],
    chats: Sequence[ChatTokenizer],
    ends: Sequence[int],
    names: Sequence[str],
) -> list[tuple[Answered, Answered]]:
    """What the policy and the reference were asked, and what was answered, for each sample of a
    prompt. Raises ConversationError."""
    chat, plain = chats
    turns = messages(prompt.prompt, None)
    free, responses = plain.generated_ids(turns, [sample.response for sample in samples])
    _, [closed] = plain.answer_ids(turns, [""])
    end = closed[-1] if closed and closed[-1] in ends else ends[0]
    steered: dict[int, list[int]] = {}
    pairs = []
    for sample, response in zip(samples, responses, strict=True):
        index = sample.direction_index
        if index not in steered:
            steering = Steering(index, sample.direction, sample.condition)
            request = request_for(prompt, steering, chat, names, 0, EVALUATION)
            steered[index] = request.prompt_ids
        tokens = response + [end] * (sample.finish_reason == "stop")
        pairs.append((Answered(steered[index], tokens), Answered(free, tokens)))
    return pairs
