"""From chat messages to token ids: the one way, for sampling and for training alike.

Contents are escaped first (control_tokens), so that control tokens come from templates only.
"""

from typing import Any

from dpa.errors import InputError
from dpa.text.control_tokens import chat_controls


def prompt_ids(tokenizer: Any, messages: list[dict]) -> list[int]:
    """Token ids of a conversation up to the point where the assistant is to answer."""
    messages = chat_controls(tokenizer).escape_messages(messages)
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def conversation_ids(tokenizer: Any, messages: list[dict]) -> tuple[list[int], list[int]]:
    """Token ids of a conversation and a 0/1 mask of the tokens that the assistant writes.

    What the assistant writes includes the end token, so that a policy learns to stop.
    Raises InputError when the chat template is not made of consecutive turns.
    """
    messages = chat_controls(tokenizer).escape_messages(messages)
    ids: list[int] = []
    mask: list[int] = []
    for index, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(
            messages[:index], add_generation_prompt=True, return_dict=False
        )
        after = tokenizer.apply_chat_template(messages[: index + 1], return_dict=False)
        if before[: len(ids)] != ids or after[: len(before)] != before:
            raise InputError(
                f"the chat template of {tokenizer.name_or_path} rewrites earlier turns; "
                "use one that only appends"
            )
        mask += [0] * (len(before) - len(ids)) + [1] * (len(after) - len(before))
        ids = after
    return ids, mask


def answer_ids(
    tokenizer: Any, messages: list[dict], answers: list[str]
) -> tuple[list[int], list[list[int]]]:
    """Token ids of a prompt's messages, and those of each answer after it, end token included.

    Raises InputError as conversation_ids does.
    """
    prompt = prompt_ids(tokenizer, messages)
    rows = [
        conversation_ids(tokenizer, [*messages, {"role": "assistant", "content": answer}])[0]
        for answer in answers
    ]
    return prompt, [row[len(prompt) :] for row in rows]


def truncate_ids(ids: list[int], max_length: int, tokenizer: Any) -> list[int]:
    """The last `max_length` tokens, the first one kept if it is the begin token.

    The response's end and the suffix, where the scores are read, always stay. Same as the
    tokenizer's own truncation from the left.
    """
    if len(ids) <= max_length:
        return ids
    head = 1 if ids[0] == tokenizer.bos_token_id else 0
    return ids[:head] + ids[len(ids) - max_length + head :]
