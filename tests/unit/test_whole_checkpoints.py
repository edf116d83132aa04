"""A checkpoint that is not what it says is refused, whatever it is loaded as."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpa import models
from dpa.config.load import load_config
from dpa.errors import InputError
from dpa.evaluation.preference_judge import PreferenceJudge
from dpa.generation.load import load_engine
from dpa.reward.load import load_scorer
from dpa.text.tokenization import ChatTokenizer
from dpa.training.trainer import load_policy
from tests.support.tiny_models import make_policy, make_reward_model, make_tokenizer

ENGINE = {"temperature": 1.0, "max_new_tokens": 8, "max_model_len": 64, "rows_per_batch": 4}


def sampled(path):
    return load_engine("transformers", path, **ENGINE)


def trained(path):
    ChatTokenizer.load(path)
    return load_policy(path, load_config().trainer)


def scored(path):
    return load_scorer(path, tokens_per_batch=512)


LOADERS = {
    "policy": (sampled, trained),
    "reward model": (scored,),
    "judge": (PreferenceJudge.load,),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory, tiny_tokenizer):
    """A sound folder of each kind."""
    folder = tmp_path_factory.mktemp("sound")
    make_policy(folder / "policy", tiny_tokenizer)
    make_reward_model(folder / "reward model")
    make_reward_model(folder / "judge", names=["score"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "judge")
    tokenizer.chat_template = make_tokenizer().chat_template
    tokenizer.save_pretrained(folder / "judge")
    return folder


def test_sound_checkpoints_pass(sound):
    for kind, loaders in LOADERS.items():
        for load in loaders:
            assert load(str(sound / kind))


def config(**changed):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return change


def weights(**added):
    def change(folder):
        path = folder / "model.safetensors"
        save_file(load_file(path) | added, path, metadata={"format": "pt"})

    return change


def file(name, content):
    return lambda folder: (folder / name).write_text(json.dumps(content))


def limit(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": -1}))


def one_token_more(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer.add_tokens([f"word{i}" for i in range(size + 1 - len(tokenizer))])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (config(num_hidden_layers=1, layer_types=None), "has 9 tensors that .* has not"),
        (config(num_hidden_layers=3, layer_types=None), "lacks 9 of the tensors"),
        (config(intermediate_size=48), "of other shapes .*gate_proj"),
        (weights(**{"model.adapter.weight": torch.ones(2)}), "has 1 tensors .*model.adapter"),
        (config(max_position_embeddings=-1), "max_position_embeddings: -1"),
        (config(num_hidden_layers=-2, layer_types=None), "num_hidden_layers"),
        (config(num_key_value_heads=0), "num_key_value_heads: 0"),
        (config(rms_norm_eps=float("nan")), "rms_norm_eps: nan"),
        (limit, "model_max_length: -1"),
        (one_token_more, "ids beyond it .'word"),
        (config(dtype="float7"), "cannot load the .*: AttributeError .*float7"),
        (config(hidden_act="nonsense"), "cannot load the weights: KeyError 'nonsense'"),
        (config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
         "a quantised checkpoint"),
        (config(quantization_config={"quant_method": "awq", "bits": 4}), "a quantised checkpoint"),
        (file("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "a/b"}),
         "LoRA adapters, not a whole model"),
    ],
)  # fmt: skip
def test_a_spoilt_checkpoint_is_refused(sound, tmp_path, kind, spoil, said):
    shutil.copytree(sound / kind, tmp_path / "model")
    spoil(tmp_path / "model")
    for load in LOADERS[kind]:
        with pytest.raises(InputError, match=said) as refused:
            load(str(tmp_path / "model"))
        assert str(tmp_path / "model") in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_an_end_token_that_does_not_exist_is_refused(sound, tmp_path, name):
    shutil.copytree(sound / "policy", tmp_path / "model")
    if name == "config.json":
        (tmp_path / "model/generation_config.json").unlink()
    file = tmp_path / "model" / name
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [2, 100_000]}))
    with pytest.raises(InputError, match=r"end tokens \[2, 100000\].*not all in its tokenizer"):
        sampled(tmp_path / "model")


@pytest.mark.parametrize(
    "labels",
    [{"0": "a", "1": "a", "2": "a"}, {"0": "a", "1": "b", "5": "c"}, {"0": "a", "1": "b"}],
)
def test_outputs_have_names_of_their_own(sound, tmp_path, labels):
    shutil.copytree(sound / "reward model", tmp_path / "model")
    ids = {name: int(i) for i, name in labels.items()}
    config(id2label=labels, label2id=ids)(tmp_path / "model")
    with pytest.raises(InputError, match=r"id2label|score\.weight is 3x16, not 2x16"):
        scored(tmp_path / "model")


def test_what_is_harmless_passes(sound, tmp_path):
    """Position buffers of old checkpoints, a head under a classifier, a special token that only
    pictures have."""
    for kind, added in (
        ("policy", {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        ("reward model", {"lm_head.weight": torch.ones(4, 4)}),
    ):
        folder = tmp_path / kind
        shutil.copytree(sound / kind, folder)
        weights(**added)(folder)
        one_token_more(folder)
        text = (folder / "tokenizer.json").read_text()
        tokenizer = json.loads(text)
        for token in tokenizer["added_tokens"]:
            token["special"] |= token["content"].startswith("word")
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        (folder / "tokenizer_config.json").unlink()
        for load in LOADERS[kind][:1]:
            if kind == "policy":  # its template is told by a file of its own
                assert (folder / "chat_template.jinja").exists()
            assert load(str(folder))


def test_a_soup_of_heads_stays_tied(tmp_path, tiny_tokenizer):
    """A tied head that was saved all the same is no tensor too many."""
    from transformers import LlamaConfig

    shape = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    folder = make_policy(tmp_path / "policy", tiny_tokenizer, shape)
    config(tie_word_embeddings=True)(folder)
    stored = load_file(folder / "model.safetensors")
    weights(**{"lm_head.weight": stored["model.embed_tokens.weight"].clone()})(folder)
    assert models.load_model(AutoModelForCausalLM, folder)


@pytest.mark.vllm
def test_vllm_is_not_started_with_other_weights(sound, tmp_path):
    pytest.importorskip("vllm")
    shutil.copytree(sound / "policy", tmp_path / "model")
    config(num_hidden_layers=1, layer_types=None)(tmp_path / "model")
    with pytest.raises(InputError, match="has 9 tensors that"):
        load_engine("vllm", str(tmp_path / "model"), **ENGINE)
