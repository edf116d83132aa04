"""A base model from scratch, for worlds small enough: tokenizer, architecture, initial weights.

Real experiments name a pretrained model instead (`base_model.path`). The quickstart's base model is
pretrained on documents with length hints, which teach it that numbers in a system prompt matter: a
large pretrained model knows that already.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dpa.artefacts.jsonl import decode_lines
from dpa.artefacts.row_counts import RowCounts
from dpa.config.trainer import ScratchConfig
from dpa.records import Rating
from dpa.text.prompts import (
    CONDITION_SENTENCE,
    DIRECTION_SENTENCE,
    REWARD_INSTRUCTION,
    REWARD_SUFFIX,
    SYSTEM_SENTENCE,
    reward_input,
)

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

#: Fixed texts of our templates, one token each: a tiny model should not spend its context on them.
FIXED_TEXTS = [
    f"{SYSTEM_SENTENCE} {DIRECTION_SENTENCE}",
    f"{SYSTEM_SENTENCE} {CONDITION_SENTENCE}",
    REWARD_INSTRUCTION,
    REWARD_SUFFIX,
]


def rated_texts(ratings: Path, row_counts: RowCounts) -> Iterator[str]:
    """What the reward model reads of the training ratings; held-out ones are counted."""
    for rating in decode_lines(ratings, Rating):
        row_counts.read += 1
        if rating.split != "validation":
            yield reward_input(rating.prompt, rating.response)
        else:
            row_counts.drop("held out", asked_for=True)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer with a chat template; whole numbers 0..100 are one token each.

    Digit by digit, a tiny model ignores the numbers in its system prompt.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    added = [str(n) for n in range(101)]
    special = [PAD, BOS, EOS, *ROLES]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size - len(added) - len(FIXED_TEXTS),
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([AddedToken(n, single_word=True, normalized=False) for n in added])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in FIXED_TEXTS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=ROLES,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(tokenizer: Any, scratch: ScratchConfig, seed: int) -> Any:
    """A Mistral-architecture causal LM with random weights."""
    from transformers import GenerationConfig, MistralConfig, MistralForCausalLM, set_seed

    set_seed(seed % 2**32)
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=scratch.hidden_size,
            intermediate_size=scratch.intermediate_size,
            num_hidden_layers=scratch.layers,
            num_attention_heads=scratch.heads,
            num_key_value_heads=scratch.heads,
            max_position_embeddings=scratch.max_positions,
            initializer_range=scratch.initializer_range,
            sliding_window=None,
            tie_word_embeddings=True,
            **ids,
        )
    )
    model.generation_config = GenerationConfig(**ids)
    return model
