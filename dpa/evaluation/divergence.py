"""How far a policy has moved from the SFT policy: log-probabilities of its samples under both.

Over samples y of the policy p, asked with its direction v, and the SFT policy q, asked without,

    KL(p(.|x, v) || q(.|x)) = E [log p(y|x, v) - log q(y|x)]

and the mean of the difference estimates it without bias; of a single sample it may be negative.
Both probabilities are of softmax(logits / temperature), which y was drawn from: sampling has no
top-k and no top-p that would make it another distribution. y includes its end token; where it was
truncated at max_new_tokens it ends there, as it would under the other policy.

What is known of y is its text. Where a policy wrote it in other tokens than its tokenizer does, the
text's usual tokens stand for them (under both policies), and the sidecar counts such responses.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pandas as pd

from dpa.artefacts.jsonl import decode_lines
from dpa.artefacts.outputs import atomic
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar
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
    for ref in refs:
        download(ref)
    take_gpu()
    from dpa.generation.likelihood import log_probabilities

    with Watchdog(f"measuring {output}") as watchdog:
        progress = Progress(2 * len(rows), "log-probabilities")

        def on_batch(rows: int) -> None:
            watchdog.beat()
            progress.advance(rows)

        for name, ref, answered in zip(("policy", "reference"), refs, asked, strict=True):
            # One model at a time: what sampled it has memory for one.
            table[f"{name}_logprob"] = log_probabilities(
                ref, answered, temperature, DIVERGENCE_TOKENS, on_batch
            )
    with atomic(output) as partial:
        table.drop(columns="retokenised").to_parquet(partial, index=False)
    write_sidecar(
        output,
        [*(ref.path for ref in refs), samples, prompts],
        row_counts,
        temperature=temperature,
        retokenised=int(table["retokenised"].sum()),
        **chats[0].details(),
    )


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
