"""The engines: exactness against plain transformers, seeds, batching, ends of responses, errors."""

import gc
import importlib.util
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen3NextConfig,
)

from dpa.errors import InputError
from dpa.generation import vllm_engine
from dpa.generation.engine import Request, decode_completion
from dpa.generation.load import load_engine
from dpa.generation.transformers_engine import draw_tokens, uniforms
from tests.support.tiny_models import make_policy

TEXTS = [
    "Describe the otter.",
    "Where?",
    "What does the badger eat, and where does the fox live? Nature is full of wonders.",
    "Tell me more about the fox.",
    "Help",
]
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
}
ARCHITECTURES = {
    "mistral": None,
    "grouped-heads": LlamaConfig(**SHAPE),
    "window": MistralConfig(**SHAPE, sliding_window=12),
    "mixed-window": Gemma2Config(**SHAPE, sliding_window=12, query_pre_attn_scalar=8),
    "gemma": GemmaConfig(**SHAPE),
}
#: The families of the paper's policies, with heads that vLLM can run on a CPU.
WIDE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
FAMILIES = {
    "mistral": MistralConfig(**SHAPE | WIDE, sliding_window=None),
    "gemma": GemmaConfig(**SHAPE | WIDE),
}


def load(
    policy, name="transformers", temperature=1.0, max_new_tokens=40, rows_per_batch=64, **options
):
    return load_engine(
        name,
        policy,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        max_model_len=140,
        rows_per_batch=rows_per_batch,
        **options,
    )


def ids_of(engine, text):
    return engine.chat.prompt_ids([{"role": "user", "content": text}])


def requests(engine, samples=1, texts=TEXTS):
    return [
        Request(ids_of(engine, text), list(range(1000 * i, 1000 * i + samples)))
        for i, text in enumerate(texts)
    ]


def reference_uniform(seed, step):
    """splitmix64 in whole numbers."""

    def mix(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    return (mix((mix(seed) + (step + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 12) / 2**52


def test_uniforms_follow_their_definition():
    seeds = [0, 1, 2**63 - 1, 12345 << 16]
    numbers = uniforms(seeds, 3)
    assert numbers.shape == (4, 3)
    assert numbers.tolist() == [[reference_uniform(s, t) for t in range(3)] for s in seeds]


def test_uniforms_are_uniform_and_independent_across_neighbouring_seeds():
    numbers = uniforms(range(7 << 16, (7 << 16) + 500), 200)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, 50, (0, 1))[0]
    assert chisquare(counts).pvalue > 1e-4
    for a, b in ((numbers[:-1], numbers[1:]), (numbers[:, :-1], numbers[:, 1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_draws_invert_the_distribution_and_never_take_the_impossible():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, np.log(3.0), -torch.inf]])
    uniform = torch.tensor([0.0, 0.2499, 0.2501, 1 - 2.0**-52], dtype=torch.float64)
    drawn = draw_tokens(logits.expand(4, -1), uniform, 1.0)
    assert drawn.tolist() == [1, 1, 3, 3]
    # At half the temperature the odds are squared: 1 to 9.
    assert draw_tokens(logits.expand(4, -1), uniform, 0.5).tolist() == [1, 3, 3, 3]
    assert draw_tokens(logits, uniform[:1], 0).tolist() == [3]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("rows_per_batch", [2, 64])
def test_greedy_equals_generate(tmp_path, tiny_tokenizer, name, rows_per_batch):
    ends = list(range(2, len(tiny_tokenizer), 2 if name == "gemma" else 7))
    policy = make_policy(tmp_path, tiny_tokenizer, ARCHITECTURES[name], end_bias=0, ends=ends)
    engine = load(policy, temperature=0, rows_per_batch=rows_per_batch)
    [results] = engine.generate([requests(engine)])
    model = AutoModelForCausalLM.from_pretrained(policy)
    lengths = set()
    for request, [completion] in zip(requests(engine), results, strict=True):
        prompt = torch.tensor([request.prompt_ids])
        tokens = model.generate(prompt, do_sample=False, max_new_tokens=40)[0, prompt.shape[1] :]
        said = tokens[:-1] if tokens[-1] in ends else tokens
        assert completion.text == tiny_tokenizer.decode(said, skip_special_tokens=True)
        assert completion.tokens == len(tokens)
        lengths.add(len(tokens))
    assert len(lengths) > 1  # or the rows would never leave the batch at different times


def test_first_tokens_follow_the_softmax(tiny_policy, tiny_tokenizer):
    engine = load(tiny_policy, temperature=0.7, max_new_tokens=1, rows_per_batch=4000)
    ids = ids_of(engine, TEXTS[0])
    [[completions]] = engine.generate([[Request(ids, list(range(5 << 16, (5 << 16) + 4000)))]])
    model = AutoModelForCausalLM.from_pretrained(tiny_policy)
    with torch.no_grad():
        odds = torch.softmax(model(torch.tensor([ids])).logits[0, -1] / 0.7, -1).tolist()
    expected: dict[str, float] = {}
    for token, share in enumerate(odds):
        text = tiny_tokenizer.decode([token], skip_special_tokens=True)
        expected[text] = expected.get(text, 0) + 4000 * share
    common = [text for text, count in expected.items() if count >= 5]
    assert len(common) > 50
    drawn = [completion.text for completion in completions]
    observed = [drawn.count(text) for text in common]
    rest = 4000 - sum(expected[text] for text in common)
    pvalue = chisquare(
        [*observed, 4000 - sum(observed)], [*(expected[text] for text in common), rest]
    ).pvalue
    assert 1e-4 < pvalue < 1 - 1e-4


def test_completions_do_not_depend_on_the_rest_of_the_batch(tiny_policy):
    engine = load(tiny_policy)
    chunk = requests(engine, samples=6)
    [together] = engine.generate([chunk])
    for rows_per_batch in (1, 4, 7, 30):
        [again] = load(tiny_policy, rows_per_batch=rows_per_batch).generate([chunk])
        assert again == together
    alone = [result for [result] in engine.generate([[request] for request in chunk])]
    assert alone == together
    singly = [[Request(r.prompt_ids, [seed]) for r in chunk for seed in r.seeds]]
    [flat] = engine.generate(singly)
    assert [c for [c] in flat] == [c for completions in together for c in completions]


def test_prompts_are_prefilled_in_passes_of_bounded_size(tiny_policy, monkeypatch):
    engine = load(tiny_policy)
    chunk = requests(engine, samples=3)
    [expected] = engine.generate([chunk])
    monkeypatch.setattr("dpa.generation.transformers_engine.MOST_PREFILL_TOKENS", 60)
    assert list(engine.generate([chunk])) == [expected]


def test_chunks_do_not_touch_each_other(tiny_policy):
    engine = load(tiny_policy)
    first, second = requests(engine, 4, TEXTS[:2]), requests(engine, 4, TEXTS[2:])
    forward = list(engine.generate([first, second]))
    assert list(engine.generate([second, first])) == forward[::-1]
    assert [len(completions) for result in forward for completions in result] == [4] * 5


def test_seeds_decide(tiny_policy):
    engine = load(tiny_policy)
    ids = ids_of(engine, TEXTS[0])
    [[one, two, other]] = engine.generate(
        [[Request(ids, [7, 8]), Request(ids, [7, 8]), Request(ids, [9, 10])]]
    )
    assert one == two
    assert len({completion.text for completion in one + other}) == 4


def test_responses_end_at_the_end_token_or_the_limit(tiny_policy):
    engine = load(tiny_policy, max_new_tokens=20, rows_per_batch=1000)
    [[completions]] = engine.generate([requests(engine, 1000, TEXTS[:1])])
    ended = [c for c in completions if c.finish_reason == "stop"]
    truncated = [c for c in completions if c.finish_reason == "length"]
    assert min(len(ended), len(truncated)) > 200
    assert {c.tokens for c in truncated} == {20}
    assert min(c.tokens for c in ended) == 1  # the end token alone, and it counts
    assert all(c.text == "" for c in ended if c.tokens == 1)
    assert not any(engine.chat.tokenizer.eos_token in c.text for c in completions)


def test_all_end_tokens_of_the_generation_config_count(tmp_path, tiny_tokenizer, tiny_policy):
    engine = load(tiny_policy)
    [[completions]] = engine.generate([requests(engine, 100, TEXTS[:1])])
    word = tiny_tokenizer.encode(" The", add_special_tokens=False)
    assert len(word) == 1
    policy = make_policy(tmp_path, tiny_tokenizer, ends=[tiny_tokenizer.eos_token_id, *word])
    [[shorter]] = load(policy).generate([requests(engine, 100, TEXTS[:1])])
    assert any(" The" in completion.text for completion in completions)
    for before, after in zip(completions, shorter, strict=True):
        assert after.text == before.text.split(" The")[0]
        assert (after.tokens < before.tokens) == (" The" in before.text)


def test_unfit_policies_are_refused(tmp_path, tiny_tokenizer, tiny_policy):
    with pytest.raises(InputError, match=r"holds 512 tokens, fewer than .* = 600"):
        load_engine(
            "transformers",
            tiny_policy,
            temperature=1,
            max_new_tokens=100,
            max_model_len=600,
            rows_per_batch=1,
        )
    with pytest.raises(InputError, match="nowhere"):
        load(tmp_path / "nowhere")
    endless = make_policy(tmp_path / "endless", tiny_tokenizer)
    for name in ("config.json", "generation_config.json"):
        text = (endless / name).read_text()
        (endless / name).write_text(text.replace('"eos_token_id": 2', '"eos_token_id": null'))
    with pytest.raises(InputError, match="no end token"):
        load(endless)
    linear = Qwen3NextConfig(
        **SHAPE,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        layer_types=["linear_attention", "full_attention"],
    )
    with pytest.raises(InputError, match=r"linear_attention.*vllm"):
        load(make_policy(tmp_path / "linear", tiny_tokenizer, linear))


def test_diverged_policy_is_refused(tmp_path, tiny_tokenizer):
    policy = make_policy(tmp_path, tiny_tokenizer)
    model = AutoModelForCausalLM.from_pretrained(policy)
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    model.save_pretrained(policy)
    engine = load(policy)
    with pytest.raises(InputError, match="diverged"):
        list(engine.generate([requests(engine)]))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed")
def test_missing_vllm_is_explained(tiny_policy):
    with pytest.raises(InputError, match=r"install the extra .* or set sampling.engine"):
        load(tiny_policy, "vllm")


def test_vllm_starts_without_a_compiler(monkeypatch):
    """Its sampler from FlashInfer would be compiled; also where vLLM itself is not installed."""
    monkeypatch.delenv("VLLM_USE_FLASHINFER_SAMPLER", raising=False)
    with suppress(InputError):
        vllm_engine.import_vllm("sampling.engine")
        from vllm import envs

        assert envs.VLLM_USE_FLASHINFER_SAMPLER is False
    assert os.environ["VLLM_USE_FLASHINFER_SAMPLER"] == "0"


@pytest.mark.parametrize("planted", [None, 0o777, "link"])
def test_kernels_are_compiled_on_the_nodes_own_disk(tmp_path, monkeypatch, planted):
    """And never taken from where others could have put them."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    usual = tmp_path / f"dpa-{os.getuid()}"
    if planted == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        usual.symlink_to(tmp_path / "elsewhere")
    elif planted:
        usual.mkdir()
        usual.chmod(planted)
    caches = vllm_engine.local_caches()
    assert set(caches) == {"VLLM_CACHE_ROOT", "TRITON_CACHE_DIR"}
    for path in map(Path, caches.values()):
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert (path.parent == usual) == (planted is None)


@pytest.mark.vllm
class TestVllm:
    """The real engine on a CPU."""

    @pytest.fixture(scope="class", autouse=True)
    def _vllm(self):
        pytest.importorskip("vllm")

    @pytest.mark.parametrize("family", FAMILIES)
    def test_greedy_tokens_equal_those_of_transformers(
        self, tmp_path, tiny_tokenizer, monkeypatch, family
    ):
        policy = make_policy(tmp_path, tiny_tokenizer, FAMILIES[family], end_bias=0.5)
        tokens: list[list[int]] = []

        def recording(settings, token_ids, finish_reason):
            tokens.append(list(token_ids))
            return decode_completion(settings, token_ids, finish_reason)

        found, counted = {}, {}
        for name in ("transformers", "vllm"):
            monkeypatch.setattr(f"dpa.generation.{name}_engine.decode_completion", recording)
            counts: list[int] = []
            engine = load(policy, name, temperature=0, on_tokens=counts.append)
            chunks = [requests(engine, 2, TEXTS[:3]), requests(engine, 2, TEXTS[3:])]
            tokens.clear()
            results = list(engine.generate(chunks))
            engine.close()
            found[name] = (results, sorted(set(map(tuple, tokens))))
            counted[name] = sum(counts)
        assert found["vllm"] == found["transformers"]
        completions = [c for result in results for copies in result for c in copies]
        assert len({c.text for c in completions}) == len(TEXTS)
        assert counted["transformers"] == sum(c.tokens for c in completions)
        assert counted["vllm"] == sum(c.tokens for c in completions) / 2  # copies are not made

    def test_its_batch_is_as_large_as_the_plan_says(self, tiny_policy):
        """By itself vLLM takes 256 here, as on an A100."""
        engine = load(tiny_policy, "vllm")
        scheduler = engine.llm.llm_engine.vllm_config.scheduler_config
        engine.close()
        assert scheduler.max_num_seqs == vllm_engine.MAX_SEQUENCES == 1024

    def test_a_closed_engine_leaves_nothing_of_its_model(self, tiny_policy):
        """The next engine of the process takes what is free, at once."""

        def layers():
            gc.unfreeze()  # vLLM hides what it made from the collector
            return sum(issubclass(type(it), torch.nn.Module) for it in gc.get_objects())

        gc.collect()
        before = layers()
        engine = load(tiny_policy, "vllm")
        assert layers() > before + 10
        engine.close()
        assert layers() == before

    def test_its_batch_is_full_as_long_as_there_is_work(self, tiny_policy, monkeypatch):
        monkeypatch.setattr("dpa.generation.vllm_engine.SAMPLES_IN_FLIGHT", 24)
        monkeypatch.setattr("dpa.generation.vllm_engine.MAX_SEQUENCES", 8)
        engine = load(tiny_policy, "vllm")
        chunks = [requests(engine, 4, [text]) for text in TEXTS * 4]
        handed, busy = 0, []

        def source():
            nonlocal handed
            for chunk in chunks:
                handed += 1
                yield chunk

        real = engine._step

        def counting():
            if handed < len(chunks):
                busy.append(len(engine.places))
            real()
            assert len(engine.places) < 24 + 4

        monkeypatch.setattr(engine, "_step", counting)
        results = list(engine.generate(source()))
        assert [len(result[0]) for result in results] == [4] * 20
        assert len(busy) > 20
        assert min(busy) >= 24  # three times its batch
        engine.close()

    def test_a_quantised_cache_samples_much_the_same(self, tiny_policy):
        found = {}
        for dtype in ("auto", "fp8"):
            engine = load(tiny_policy, "vllm", kv_cache_dtype=dtype)
            cache = engine.llm.llm_engine.vllm_config.cache_config
            assert cache.cache_dtype == dtype
            [result] = engine.generate([requests(engine, 8)])
            found[dtype] = [c.text for completions in result for c in completions]
            engine.close()
        same = sum(a[:8] == b[:8] for a, b in zip(*found.values(), strict=True))
        assert len(found["auto"]) / 2 < same
        assert found["auto"] != found["fp8"]

    def test_seeded_samples_depend_on_nothing_else(self, tiny_policy, monkeypatch):
        engine = load(tiny_policy, "vllm")
        chunks = [requests(engine, 8, [text]) for text in TEXTS]
        results = list(engine.generate(chunks))
        assert list(engine.generate(chunks[::-1])) == results[::-1]
        monkeypatch.setattr("dpa.generation.vllm_engine.SAMPLES_IN_FLIGHT", 1)
        assert list(engine.generate(chunks)) == results
        # Sample i is drawn with seed + i.
        [[first, *_]] = results[0]
        [request] = chunks[0]
        tail = Request(request.prompt_ids, request.seeds[3:])
        assert list(engine.generate([[tail]])) == [[results[0][0][3:]]]
        assert list(engine.generate([[Request(request.prompt_ids, [0])]])) == [[[first]]]
        texts = {c.text for result in results for completions in result for c in completions}
        assert len(texts) > 30
        engine.close()

    def test_unsupported_heads_are_explained(self, tmp_path, tiny_tokenizer):
        policy = make_policy(tmp_path, tiny_tokenizer, LlamaConfig(**SHAPE))
        with pytest.raises(InputError, match=r"heads of width 8.*transformers"):
            load(policy, "vllm")
