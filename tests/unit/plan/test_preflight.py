"""Each check, made to fail by the thing that it is for."""

import json
import os
import re
import shutil
import stat
from types import SimpleNamespace

import pytest
import yaml

from dpa.config.base import ModelConfig
from dpa.config.load import load_config
from dpa.plan.assumptions import load_assumptions
from dpa.plan.gpu_node import (
    compiler,
    computing,
    enough,
    fitting,
    gpus,
    roomy,
    told_memory,
)
from dpa.plan.preflight import (
    check_all,
    contexts,
    continued,
    disk,
    extra_points,
    given_models,
    judge_notes,
    model_context,
    model_files,
    packages,
    reward_model,
    saving,
    template,
    used_bytes,
)
from dpa.plan.stages import stage_jobs
from dpa.plan.work import Experiment
from dpa.quickstart.base_model import CHAT_TEMPLATE, train_tokenizer
from dpa.runtime.gpus import visible_gpus
from dpa.runtime.sections import merge

TEXTS = ["What is a prime number? A number with two divisors. User: Assistant:"] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 500)


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A model folder without weights to speak of: checks read everything else."""
    tokenizer.save_pretrained(tmp_path / "model")
    write(tmp_path / "model", "config.json", max_position_embeddings=4096, eos_token_id=2,
          pad_token_id=0, model_type="mistral", hidden_size=8, intermediate_size=8, vocab_size=600,
          num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)  # fmt: skip
    (tmp_path / "model/model.safetensors").write_bytes(b"")
    return tmp_path / "model"


def write(folder, name, **values):
    before = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps(before | values))


def config_of(tmp_path, **overlay):
    """The quickstart with a given SFT policy."""
    base = {"extends": "quickstart", "sft": {"path": str(tmp_path / "model")}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(merge(base, overlay)))
    return load_config({"experiment": str(tmp_path / "mine.yaml")})


def model(folder):
    return ModelConfig(path=str(folder), revision=None)


def test_a_good_model_passes_everything(tmp_path, folder):
    config = config_of(tmp_path)
    found = check_all(config, tmp_path / "results", ["dpa/iter0", "dpa/iter1"], ["dpa-1", "sft"])
    assert found.failures == []
    assert {"contexts", "files of sft", "template of sft", "context of sft", "disk"} <= set(
        found.passed
    )


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        # As Gemma's and the first Mistral-Instruct's.
        ("{% if messages[0]['role'] == 'system' %}"
         "{{ raise_exception('System role not supported') }}{% endif %}" + CHAT_TEMPLATE,
         "refuses a system message .System role not supported.*copy .* to a folder"),
        (CHAT_TEMPLATE.replace("{% for m in messages %}",
                               "{% for m in messages if m['role'] != 'system' %}"),
         "drops the system message, with the direction in it"),
        (CHAT_TEMPLATE.replace("{{ eos_token }}", ""), "has no end token"),
    ],
)  # fmt: skip
def test_templates_that_lose_what_they_are_given(tmp_path, folder, broken, message):
    (folder / "chat_template.jinja").write_text(broken)
    (line,) = template("sft", model(folder), config_of(tmp_path))
    assert re.search(message, line), line


def test_the_end_token_is_the_one_that_sampling_stops_at(tmp_path, folder):
    write(folder, "generation_config.json", eos_token_id=[7])
    (line,) = template("sft", model(folder), config_of(tmp_path))
    assert "no end token ([7])" in line


@pytest.mark.parametrize(
    ("kind", "trainer", "message"),
    [
        ("gpt_oss", {"packing": True}, r"gpt_oss keeps packed rows apart .*trainer\.packing"),
        ("gpt_oss", {"packing": False}, None),
        ("gemma2", {"attention": "sdpa"}, r"sdpa leaves out its soft-capping"),
        ("mistral", {"packing": True}, None),
    ],
)
def test_attention_that_a_policy_cannot_be_trained_with(tmp_path, folder, kind, trainer, message):
    write(folder, "config.json", model_type=kind)
    findings = check_all(config_of(tmp_path, trainer=trainer), tmp_path / "results", [], [])
    said = [line for line in findings.failures if "packed rows" in line or "leaves out" in line]
    assert len(said) == (message is not None), findings.failures
    assert message is None or re.search(message, said[0])


def test_contexts_that_are_too_short(tmp_path, folder):
    write(folder, "config.json", max_position_embeddings=200)
    lines = list(model_context("sft", model(folder), config_of(tmp_path)))
    # 128 + 100 sampled; 256 trained on
    assert any("holds 200 tokens, fewer than sampling.max_prompt_tokens" in line for line in lines)
    assert any("dpa.schedule.max_length = 256" in line for line in lines)
    config = config_of(tmp_path, dpa={"schedule": {"max_length": 200}})
    (line,) = contexts(config)
    assert "dpa.schedule.max_length is 200, and sampled rows have up to 228" in line
    config = config_of(tmp_path, base_model={"scratch": {"max_positions": 240}})
    assert any("base_model.scratch.max_positions holds 240" in line for line in contexts(config))


def test_numbers_of_ones_own_that_figure_4_cannot_draw(tmp_path, folder):
    (tmp_path / "bad.csv").write_text("helpfulness,verbosity\n60,50\n")
    extra = [{"label": "mine", "file": str(tmp_path / "bad.csv")}]
    config = config_of(tmp_path, figures={"extra": extra})
    [failure] = extra_points(config)
    assert re.search(r"figures\.extra, mine: .*bad\.csv: no column \['r_helpfulness'", failure)
    assert failure in check_all(config, tmp_path, [], []).failures


def test_a_reward_model_with_other_outputs(tmp_path, folder):
    config = config_of(tmp_path)
    names = config.reward_model.attributes
    write(folder, "config.json", id2label={str(i): n for i, n in enumerate(names)})
    assert list(reward_model(model(folder), config)) == []
    write(folder, "config.json", id2label={str(i): n for i, n in enumerate(reversed(names))})
    (line,) = reward_model(model(folder), config)
    assert "correct reward_model.attributes" in line
    write(folder, "config.json", id2label={str(i): f"LABEL_{i}" for i in range(3)})
    (line,) = reward_model(model(folder), config)
    assert "3 unnamed outputs" in line


def test_a_reward_model_of_another_base_model_cannot_be_continued(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "base")
    config = config_of(tmp_path, base_model={"path": str(tmp_path / "base")})
    assert list(continued(model(folder), config)) == []
    write(tmp_path / "base", "config.json", hidden_size=16)
    (line,) = continued(model(folder), config)
    assert line.startswith("feedback.start: ")
    assert "hidden_size 8, not 16" in line


def test_a_reward_model_that_pads_with_its_last_token(tmp_path, folder, tokenizer):
    from tokenizers.processors import TemplateProcessing

    config = config_of(tmp_path)
    names = {str(i): n for i, n in enumerate(config.reward_model.attributes)}
    write(folder, "config.json", id2label=names, pad_token_id=2)
    assert list(reward_model(model(folder), config)) == []  # pad is eos, but nothing ends with it
    ending = train_tokenizer(TEXTS, 500)
    ending._tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    ending.save_pretrained(folder)
    (line,) = reward_model(model(folder), config)
    assert "end with token 2" in line
    assert "pad must differ from eos" in line


def test_files_that_are_missing(tmp_path, folder):
    assert list(model_files("sft", model(folder))) == []
    (folder / "model.safetensors").unlink()
    (line,) = model_files("sft", model(folder))
    assert "lacks weights" in line
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    write(folder, "model.safetensors.index.json", **index)
    (folder / "model-1.safetensors").write_bytes(b"")
    (line,) = model_files("sft", model(folder))
    assert "lacks model-2.safetensors: complete the folder" in line


def test_pickles_are_no_weights(tmp_path, folder, monkeypatch):
    """They are never loaded, which is better known before the first job."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (line,) = model_files("sft", model(folder))
    assert "lacks weights (model.safetensors)" in line
    hub = ModelConfig(path="org/pickled", revision="0" * 40)
    for file, problems in (("pytorch_model.bin", 1), ("model-1.safetensors", 0)):
        listing = SimpleNamespace(siblings=[SimpleNamespace(rfilename=file)])
        monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: listing)  # noqa: B023
        found = list(model_files("sft", hub))
        assert len(found) == problems
        assert not problems or "org/pickled: the hub has its weights as pickles only" in found[0]


def test_a_model_with_code_of_its_own(tmp_path, folder):
    own = {"AutoModelForSequenceClassification": "own.MistralForAttributePrediction"}
    write(folder, "config.json", architectures=["MistralForAttributePrediction"], auto_map=own)
    found = check_all(config_of(tmp_path), tmp_path / "results", [], [])
    (line,) = (line for line in found.failures if "code of its own" in line)
    assert line.startswith("sft: ")
    assert "trust_remote_code" in line


def test_locked_commits_that_could_not_be_verified_are_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = check_all(load_config({"experiment": "single-gpu"}), tmp_path, [], [], with_gpus=False)
    (note,) = (n for n in found.notes if n.startswith("HuggingFaceTB/SmolLM2-360M: "))
    assert "has not been compared with the hub" in note
    assert "--check" in note


def test_one_cause_is_one_line(tmp_path, folder):
    (folder / "config.json").unlink()
    (folder / "tokenizer.json").unlink()
    found = check_all(config_of(tmp_path), tmp_path / "results", [], [])
    assert [line for line in found.failures if "lacks config.json, tokenizer" in line]
    assert len(found.failures) == 1


def test_a_disk_that_is_too_small(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a").write_bytes(b"x" * 5000)
    assert used_bytes(tmp_path / "results") == 5000
    (line,) = disk(tmp_path / "results", 1e18)
    assert "will store 1e+09 GB more" in line
    # What is there need not come again.
    assert list(disk(tmp_path / "results", 5000)) == []
    assert list(disk(tmp_path / "not/yet", 5000)) == []


def test_packages_that_are_not_installed(tmp_path, folder):
    config = config_of(tmp_path, trainer={"attention": "flash_attention_2"})
    assert ["flash-attn" in line for line in packages(config)] == [True]


# --- GPUs: nvidia-smi is a stand-in, and torch sees none ------------------------------------------

CARDS = "GPU 0: A100 (UUID: GPU-a)\nGPU 1: A100 (UUID: GPU-b)"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Puts commands in front of PATH that print what real ones print."""

    def put(name, text):
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def make(listed=CARDS, memory="", driver="", scontrol=""):
        printed = {"-L": listed, "*memory*": memory, "*driver*": driver}
        cases = "\n".join(f"{k}) cat <<'EOF'\n{v}\nEOF\n;;" for k, v in printed.items())
        put("nvidia-smi", f'case "$*" in\n{cases}\nesac')
        put("scontrol", f"cat <<'EOF'\n{scontrol}\nEOF")

    for name in ("CUDA_VISIBLE_DEVICES", "SLURMD_NODENAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return make


def gpu_config(tmp_path, memory=80, **compute):
    compute = {"gpu": True, "training_processes": 2, **compute}
    return config_of(tmp_path, compute=compute, plan={"gpu_memory_gb": memory})


def test_no_gpu_is_said_in_torchs_words(tmp_path, folder, machine):
    machine(listed="", driver="[N/A]")
    (line,) = gpus(gpu_config(tmp_path), None, [])
    assert re.search(r"torch sees no GPU here \(.*NVIDIA.*\): check the driver", line)
    assert "needs 580" not in line


@pytest.mark.parametrize("driver", ["550.54.15\n550.54.15", "580.65", "[No Permissions]"])
def test_a_driver_that_is_too_old_for_torch(tmp_path, folder, machine, driver):
    machine(listed="", driver=driver)
    (line,) = gpus(gpu_config(tmp_path), None, [])
    old = "the driver is 550.54.15, and this torch (CUDA 13.0) needs 580 or newer"
    assert (old in line) == driver.startswith("550")


def test_a_gpu_must_compute_in_bfloat16():
    assert list(computing("A100", (8, 0), "cpu")) == []
    (line,) = computing("V100", (7, 0), "cpu")
    assert "(V100) has compute capability 7.0" in line
    (line,) = computing("A100", (8, 0), "cuda")  # there is none
    assert "torch says: Found no NVIDIA driver" in line


def test_gpus_that_are_too_few_or_too_small(tmp_path, folder, monkeypatch):
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    assert list(enough(gpu_config(tmp_path), 2)) == []
    (line,) = enough(gpu_config(tmp_path, training_processes=8), 2)
    assert "has 2 GPUs, and compute.training_processes is 8" in line
    assert list(roomy(gpu_config(tmp_path), [79.6, 79.6])) == []
    (line,) = roomy(gpu_config(tmp_path), [79.6, 24.0])
    assert "a GPU here has 24.0 GiB, and plan.gpu_memory_gb is 80" in line


@pytest.mark.parametrize(
    ("named", "memory", "found"),
    [
        (None, "GPU-a, 81920\nGPU-b, 24576", [80, 24]),
        ("1", "GPU-a, 81920\nGPU-b, 24576", [24]),
        ("GPU-b,GPU-a", "GPU-a, 81920\nGPU-b, 24576", [24, 80]),
        (None, "GPU-a, [N/A]\nGPU-b, 24576", [24]),
        (None, "[Insufficient Permissions]", []),
        (None, "No devices were found", []),
        ("-1", "GPU-a, 81920", []),
    ],
)
def test_memory_is_that_of_the_named_gpus(machine, monkeypatch, named, memory, found):
    machine(memory=memory)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert told_memory(visible_gpus()) == found


def test_a_slurm_job_asks_for_its_nodes_gpus(tmp_path, folder, machine, monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    machine(scontrol="NodeName=n7 Gres=gpu:a100:4(S:0-1) CfgTRES=cpu=64")
    assert list(enough(gpu_config(tmp_path, training_processes=4), 1)) == []
    (line,) = enough(gpu_config(tmp_path, training_processes=8), 1)
    assert "node n7 has 4 GPUs" in line


def test_stages_that_do_not_fit_the_gpu(tmp_path, folder):
    given = {"path": "mistralai/Mistral-7B-v0.1", "revision": "0" * 40}
    overlay = {
        "compute": {"gpu": True, "training_processes": 2},
        "plan": {"gpu_memory_gb": 24},
    }
    config = config_of(tmp_path, base_model=given, sft=given, **overlay)
    experiment = Experiment(config, load_assumptions())
    lines = list(fitting(experiment, stage_jobs(config, ["dpa/iter1"], [])))
    assert any("finetune_policy needs" in line for line in lines)


def test_triton_needs_a_compiler_and_pythons_headers(tmp_path, monkeypatch):
    (tmp_path / "Python.h").touch()
    for name in ("gcc", "clang"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert list(compiler(str(tmp_path))) == []  # without nvcc
    (line,) = compiler(str(tmp_path / "none"))
    assert "none/Python.h is missing" in line
    monkeypatch.setenv("CC", "icx")
    (line,) = compiler(str(tmp_path))
    assert "no C compiler here (icx)" in line


# --- Saving ---------------------------------------------------------------------------------------


def test_what_a_training_will_save_is_saved_before(tmp_path, folder, caplog):
    caplog.set_level("INFO")
    assert list(saving("sft", model(folder))) == []
    write(folder, "generation_config.json", temperature=0.9, top_p=0.6, eos_token_id=2)
    assert list(saving("sft", model(folder))) == []  # as Vicuna's: repaired
    assert "temperature, top_p in generation_config.json: without effect, left out" in caplog.text
    write(folder, "generation_config.json", num_return_sequences=2)
    (line,) = saving("sft", model(folder))
    assert line.startswith("sft: ")
    assert "num_return_sequences" in line
    assert "copy" in line
    found = check_all(config_of(tmp_path), tmp_path / "results", [], [])
    assert [failure for failure in found.failures if "num_return_sequences" in failure]


# --- Optional -------------------------------------------------------------------------------------


def test_a_judge_without_a_key_is_a_note(tmp_path, folder, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judge = {"judge": {"kind": "gpt4_turbo", "max_cost": 1000.0}}
    notes = judge_notes(config_of(tmp_path, alpacaeval=judge))
    assert [("OPENAI_API_KEY" in note) for note in notes] == [True]
    assert notes[0].startswith("judge_alpacaeval will fail")


def test_an_annotator_needs_a_key_and_money_until_it_has_rated(tmp_path, folder, monkeypatch):
    monkeypatch.delenv("RATER_KEY", raising=False)
    annotator = {"kind": "endpoint", "model": "m", "base_url": "http://localhost/v1",
                 "key_variable": "RATER_KEY", "price": {"input": 10, "output": 30}}  # fmt: skip

    def failures(max_cost):
        settings = {"annotator": annotator | {"max_cost": max_cost}}
        config = config_of(tmp_path, feedback=settings, dpa={"iterations": 2})
        found = check_all(config, tmp_path / "results", [], []).failures
        return [line for line in found if line.startswith("feedback.annotator: ")]

    key, cost = failures(1)
    assert "RATER_KEY is not in the environment; set it" in key
    assert re.search(r"would cost about \$\d+\.\d\d, more than .*max_cost allows \(\$1.00\)", cost)
    monkeypatch.setenv("RATER_KEY", "sk")
    assert failures(10_000) == []
    monkeypatch.delenv("RATER_KEY")
    ratings = tmp_path / "results/feedback/iter1/ratings.jsonl"
    ratings.parent.mkdir(parents=True)
    ratings.touch()
    assert failures(0) == []


def test_only_what_is_used_is_looked_at(tmp_path, folder):
    names = ("base_model", "reward_model", "dpo")
    given = {name: {"path": f"a/{name}", "revision": "0" * 40} for name in names}
    config = config_of(tmp_path, **given, methods=["dpa", "sft"])
    assert [key for key, _ in given_models(config)] == ["reward_model", "sft"]
    # Reward models of later iterations are trained from it.
    config = config_of(tmp_path, **given, feedback={"annotator": {"kind": "gold"}})
    assert next(key for key, _ in given_models(config)) == "base_model"
