import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dpa.config.data import FORMAT_ATTRIBUTES, TableConfig
from dpa.config.experiment import Config
from dpa.config.load import RENAMED, config_hash, load_config
from dpa.config.steering import WedgeConfig
from dpa.errors import InputError
from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import merge, read_yaml

EXPERIMENTS = sorted((CLONE / "experiments").rglob("*.yaml"))

TABLE = {
    "name": "mine",
    "format": "table",
    "train": {"path": "mine.csv"},
    "attributes": {"quality": {"column": "stars", "from": [1, 5]}},
}


@pytest.fixture
def experiment(tmp_path):
    """Write an experiment file and load it; `attributes` are added to the reward model's."""

    def load(overlay: dict, attributes: tuple[str, ...] = ("quality",), **overrides) -> Config:
        known = yaml.safe_load((CLONE / "config.yaml").read_text())["reward_model"]["attributes"]
        overlay = merge({"reward_model": {"attributes": [*known, *attributes]}}, overlay)
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(overlay))
        return load_config({"experiment": str(path), **overrides})

    return load


class TestShippedFiles:
    @pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
    def test_every_experiment_is_valid(self, path):
        assert load_config({"experiment": str(path)}).experiment == path.stem

    @pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
    def test_what_costs_gpu_hours_takes_another_seed(self, path):
        """A list, so that the first seed's work stays when there are more; so do a user's."""
        config = load_config({"experiment": str(path)})
        assert config.seed == ([0] if config.compute.gpu else 0)

    def test_config_yaml_has_every_key(self):
        values = yaml.safe_load((CLONE / "config.yaml").read_text())
        Config.model_validate(values)

    def test_formats_bring_the_published_outputs_in_order(self):
        brought = [name for names in FORMAT_ATTRIBUTES.values() for name in names]
        assert read_yaml(CLONE / "config.yaml")["reward_model"]["attributes"] == brought[:10]
        harmless = load_config({"experiment": "gemma-2b-harmless"})
        assert harmless.reward_model.attributes == brought


#: What the paper, its appendix and the published models fix (section 3.1, 3.2, appendix A).
PAPER = {
    "dpa.iterations": 4,
    "dpa.directions_per_prompt": 5,
    "dpa.responses_per_direction": 16,
    "dpa.replay_fraction": 0.15,
    "dpa.schedule.learning_rate": 1e-5,
    "dpa.schedule.epochs": 2,
    "dpa.schedule.batch_size": 64,
    "dpa.schedule.warmup_steps": 20,
    "dpa.schedule.lr_scheduler": "cosine",
    "dpa.schedule.max_length": 4096,
    "steerlm.curve_points": 5,
    "trainer.packing": True,
    "sampling.temperature": 1.0,
    "evaluation.directions": 10,
    "evaluation.responses_per_prompt": 2,
    "evaluation.temperature": 0.7,
    "sft.path": "HuggingFaceH4/mistral-7b-sft-beta",
    "sft.schedule.learning_rate": 2e-5,
    "sft.schedule.epochs": 1,
    "sft.schedule.lr_scheduler": "cosine",
    "sft.schedule.max_length": 2048,
    "dpo.path": "HuggingFaceH4/zephyr-7b-beta",
    "dpo.recipes.zephyr.beta": 0.1,
    "dpo.recipes.zephyr.schedule.learning_rate": 5e-7,
    "dpo.recipes.zephyr.schedule.epochs": 3,
    "dpo.recipes.zephyr.schedule.batch_size": 32,
    "dpo.recipes.handbook.beta": 0.01,
    "dpo.recipes.handbook.schedule.epochs": 1,
    "dpo.recipes.handbook.schedule.batch_size": 128,
    "base_model.path": "mistralai/Mistral-7B-v0.1",
    "data.drop_sources": ["truthful_qa"],
    "data.prompts_per_half": None,
    "compute.training_processes": 8,
    "shards": 8,
}


def at(section: dict | Config, path: str):
    """The value at a dotted path of a mapping or a configuration."""
    for part in path.split("."):
        section = section[part] if isinstance(section, dict) else getattr(section, part)
    return section


class TestPaper:
    @pytest.mark.parametrize("key", PAPER)
    def test_mistral_says_what_the_paper_says(self, key):
        """In its own file: a changed default must not change the paper's experiment."""
        assert at(read_yaml(CLONE / "experiments/mistral-7b.yaml"), key) == PAPER[key]

    def test_gemma_differs_where_appendix_a_does(self):
        gemma = load_config({"experiment": "gemma-2b-harmless"})
        changed = {
            "dpa.iterations": 3,
            "sft.path": "wandb/gemma-2b-zephyr-sft",
            "dpo.path": "wandb/gemma-2b-zephyr-dpo",
        }
        for key, value in (PAPER | changed).items():
            assert at(gemma, key) == value, key
        names = [objective.name for objective in gemma.objectives]
        assert names == ["helpfulness", "verbosity", "harmlessness"]
        assert gemma.objectives[2].outputs == {"beavertails-is_safe": 1.0}
        assert gemma.reward_model.attributes[10:] == ["beavertails-is_safe"]
        beavertails = gemma.data.ratings[2]
        assert beavertails.train.split == "30k_train"
        assert beavertails.validation.split == "30k_test"

    def test_a_batch_of_64_divides_over_the_devices(self):
        for name in ("mistral-7b", "gemma-2b-harmless", "single-gpu"):
            config = load_config({"experiment": name})
            step = config.trainer.per_device_batch_size * config.compute.training_processes
            for path in ("steerlm", "dpa", "rsf"):
                assert at(config, f"{path}.schedule.batch_size") % step == 0, (name, path)
            recipe = config.dpo.recipes[config.dpo.recipe]
            assert recipe.schedule.batch_size % step == 0, name
            step = config.reward_trainer.per_device_batch_size * config.compute.training_processes
            assert config.reward_model.schedule.batch_size % step == 0, name

    @pytest.mark.parametrize("name", ["mistral-7b", "gemma-2b-harmless", "single-gpu"])
    def test_a_pass_of_the_reward_model_has_rows_enough(self, name):
        """One rating is a row there, not a packed sequence."""
        config = load_config({"experiment": name})
        assert config.reward_trainer.per_device_batch_size == 8
        assert self.trained_as_all_else(config, "per_device_batch_size", "max_grad_norm")

    @staticmethod
    def trained_as_all_else(config, *but):
        own = config.reward_trainer.model_dump(exclude=set(but))
        return own == config.trainer.model_dump(exclude=set(but))

    def test_the_reward_model_is_trained_as_all_else_but_for_the_size_of_its_gradients(self):
        """Its loss is a sum over five attributes."""
        config = load_config({"experiment": "quickstart"})
        assert self.trained_as_all_else(config, "max_grad_norm")
        assert config.reward_trainer.max_grad_norm == 5 * config.trainer.max_grad_norm

    def test_the_reward_model_is_trained_as_all_else_where_nothing_differs(self):
        config = load_config({"experiment": "gpt4-feedback"})
        assert config.reward_trainer == config.trainer


class TestLayers:
    def test_quickstart_is_the_default(self):
        assert load_config().experiment == "quickstart"
        assert load_config().sampling.engine == "transformers"

    def test_the_command_line_is_laid_over_the_experiment(self):
        config = load_config({"dpa": {"iterations": 2}, "experiment": "quickstart"})
        assert config.dpa.iterations == 2
        assert config.dpa.schedule.epochs == 8

    def test_strings_from_the_command_line_are_coerced(self):
        config = load_config(
            {"seed": "7", "shards": "3", "trainer": {"bf16": "false", "weight_decay": "1e-2"}}
        )
        assert (config.seed, config.shards) == (7, 3)
        assert (config.trainer.bf16, config.trainer.weight_decay) == (False, 0.01)

    def test_merging_replaces_lists_and_keeps_other_keys(self):
        base = {"a": {"b": [1, 2], "c": 3}, "d": 4}
        assert merge(base, {"a": {"b": [5]}}) == {"a": {"b": [5], "c": 3}, "d": 4}
        assert base["a"]["b"] == [1, 2]

    def test_an_experiment_extends_another(self, tmp_path):
        (tmp_path / "mine.yaml").write_text("extends: quickstart\ndpa: {iterations: 1}\n")
        config = load_config({"experiment": str(tmp_path / "mine.yaml")})
        assert (config.experiment, config.dpa.iterations) == ("mine", 1)
        assert config.dpa.schedule.epochs == load_config().dpa.schedule.epochs == 8

    def test_another_distribution_replaces_the_section(self):
        config = load_config({"experiment": "quickstart-3obj"})
        assert config.directions == WedgeConfig(
            distribution="wedge", from_degrees=-45.0, to_degrees=45.0
        )

    def test_a_list_of_seeds(self):
        assert load_config({"seed": [3, 4]}).seeds == [3, 4]
        assert load_config().seeds == [0]

    def test_a_path_names_an_experiment_of_ones_own(self, experiment):
        config = experiment({"data": {"ratings": [TABLE]}, "seed": 3}, seed="4")
        assert (config.experiment, config.seed) == ("mine", 4)
        assert isinstance(config.data.ratings[0], TableConfig)

    def test_the_hash_tells_configurations_apart(self):
        assert config_hash(load_config()) == config_hash(load_config({"seed": "0"}))
        assert config_hash(load_config()) != config_hash(load_config({"seed": 1}))

    def test_sections_do_not_change_after_loading(self):
        with pytest.raises(ValueError, match="frozen"):
            load_config().seed = 1  # type: ignore[misc]


class TestErrors:
    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"sede": 1}, "sede: unknown key, did you mean 'seed'?"),
            (
                {"dpa": {"iteration": 1}},
                "dpa.iteration: unknown key, did you mean 'iterations'?",
            ),
            ({"xyzzy": 1}, "xyzzy: unknown key; see config.yaml"),
            ({"seed": "x"}, "seed: Input should be a valid integer"),
            ({"seed": -1}, "seed: Input should be greater than or equal to 0 (got -1)"),
            ({"seed": [1, 1]}, "seed: the seeds of a list must differ"),
            (
                {"methods": ["dpa", "ppoo"]},
                "methods.1: Input should be 'dpa', 'steerlm', 'reward_soup',",
            ),
            ({"methods": ["dpa", "dpa"]}, "methods: names must be unique"),
            ({"scalar_direction": [4, -3]}, "nearest unit vector: 0.8,-0.6"),
            (
                {"dpa": {"choose_iteration": "judge"}},
                "judge, and evaluation.judge is null; set one",
            ),
            (
                {"evaluation": {"judge": {"share": 1}}},
                "evaluation.judge.share: Input should be less",
            ),
            (
                {"evaluation": {"judge": {"path": "m", "outputs": {"helpfulness": {"q": 1}}}}},
                "evaluation.judge.outputs: maps ['helpfulness'], and the objectives are",
            ),
            ({"scalar_direction": [1, 0, 0]}, "scalar_direction: direction [1.0, 0.0, 0.0] has 3"),
            ({"evaluation": {"directions": [[1, 0], [1, 1]]}}, "evaluation.directions: direction"),
            ({"dpo": {"recipe": "mine"}}, "recipe: 'mine' is not among ['handbook'"),
            (
                {"directions": {"distribution": "wedge", "from_degrees": -45, "to_degrees": 45}},
                "directions.distribution: wedge is for exactly 3 objectives, there are 2",
            ),
            ({"sampling": {"engine": "tgi"}}, "sampling.engine: Input should be 'vllm' or"),
            ({"directions": {"from_degrees": 0.0}}, "from_degrees must be below to_degrees"),
            (
                {"data": {"validation_prompts": []}},
                "give both train_prompts and validation_prompts",
            ),
            ({"evaluation": {"hypervolume_reference": [0]}}, "give one value per objective"),
            ({"base_model": {"scratch": {"heads": 5}}}, "hidden_size must be an even multiple"),
            (
                {"reward_model": {"attributes": ["helpsteer-verbosity"]}},
                "objectives: helpfulness uses",
            ),
            (
                {"data": {"train_prompts": [{"path": "org/data", "revision": "abc"}]}},
                "data.train_prompts.0: a hub data set needs both revision and split",
            ),
        ],
    )
    def test_names_the_key_and_what_to_do(self, overrides, message):
        with pytest.raises(InputError) as caught:
            load_config(overrides)
        assert message in str(caught.value)
        assert str(caught.value).startswith("bad configuration (config.yaml < ")

    def test_says_everything_at_once(self, experiment):
        """Old keys, wrong keys, and what contradicts in the sections that have neither."""
        wrong = {
            "dpa": {"iteration": 3},
            "trainer": {"bf16": "maybe"},
            "sft": {"training": {"epochs": 1}},
            "methods": ["dpa", "dpa"],
            "scalar_direction": [4, -3],
            "evaluation": {"hypervolume_reference": [0]},
        }
        with pytest.raises(InputError) as caught:
            experiment(wrong, seed=[1, 1], sede=2)
        keys = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
        assert sorted(keys) == [
            "dpa.iteration", "evaluation.hypervolume_reference", "methods", "scalar_direction",
            "sede", "seed", "sft.training", "trainer.bf16",
        ]  # fmt: skip

    def test_says_nothing_that_follows_from_a_wrong_key(self, experiment):
        """The default of a misspelt key would contradict what else is given."""
        overlay = {"data": {"ratings": [TABLE]}, "reward_model": {"atributes": ["quality"]}}
        with pytest.raises(InputError) as caught:
            experiment(overlay, attributes=())
        [line] = str(caught.value).splitlines()[1:]
        assert line.startswith("  reward_model.atributes: unknown key, did you mean 'attributes'?")

    @pytest.mark.parametrize(
        ("overlay", "old", "new"),
        [
            ({"training": {"bf16": True}}, "training", "trainer"),
            ({"cluster": {"gpus": 8}}, "cluster", "plan"),
            (
                {"compute": {"gpu_memory_gb": 24}},
                "compute.gpu_memory_gb",
                "plan.gpu_memory_gb",
            ),
            ({"directions": {"law": "arc"}}, "directions.law", "directions.distribution"),
            (
                {"base_model": {"scratch": {"pretraining": {"epochs": 1}}}},
                "base_model.scratch.pretraining",
                "base_model.scratch.schedule",
            ),
            (
                {"base_model": {"scratch": {"pretraining": {"schedule": "linear"}}}},
                "base_model.scratch.pretraining.schedule",
                "lr_scheduler",
            ),
            ({"dpa": {"training": {"epochs": 1}}}, "dpa.training", "schedule"),
            (
                {"dpo": {"recipes": {"zephyr": {"training": {"epochs": 1}}}}},
                "dpo.recipes.zephyr.training",
                "schedule",
            ),
            (
                {"dpa": {"training": {"schedule": "linear"}}},
                "dpa.training.schedule",
                "lr_scheduler",
            ),
            (
                {"sft": {"schedule": {"schedule": "linear"}}},
                "sft.schedule.schedule",
                "lr_scheduler",
            ),
        ],
    )
    def test_a_renamed_key_is_refused_with_its_new_name(self, experiment, overlay, old, new):
        line = f"  {old}: renamed; the key is {new} now"
        for load in (lambda: load_config(overlay), lambda: experiment(overlay)):
            with pytest.raises(InputError) as caught:
                load()
            assert line in str(caught.value).splitlines()
        assert new in RENAMED.values()

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"base_url": None}, "annotator.endpoint.base_url: Input should be a valid string"),
            ({"base_url": "localhost:8000"}, "base_url: String should match pattern '^https?://'"),
            ({"modle": "m"}, "annotator.endpoint.modle: unknown key, did you mean 'model'?"),
            # Of another kind of annotator.
            ({"outputs": {}}, "annotator.endpoint.outputs: unknown key; see config.yaml"),
            ({"path": "x"}, "annotator.endpoint.path: unknown key; see config.yaml"),
            ({"key_variable": "K"}, "price: a server with a key (K) may charge for its answers"),
            ({"request": {"n": 2}}, "request: n is set by the annotator; leave it out"),
            ({"max_cost": -1}, "max_cost: Input should be greater than or equal to 0"),
            ({"price": {"input": 1}}, "annotator.endpoint.price.output: missing"),
            ({"rubrics": {"wit": {"text": "?", "scale": [0, 1]}}}, "['wit'] are not in reward_mod"),
            (
                {"rubrics": {"ultrafeedback-honesty": {"text": "?", "scale": [0, 9]}}},
                "rubrics.ultrafeedback-honesty.scale: it is rated on its data set's scale",
            ),
            (
                {"rubrics": {"helpsteer-verbosity": {"text": "?", "scale": [4, 0]}}},
                "scale: give the lowest rating and then the highest",
            ),
        ],
    )
    def test_an_endpoint_that_cannot_rate(self, keys, message):
        annotator = {"kind": "endpoint", "model": "m", "base_url": "http://localhost/v1", **keys}
        with pytest.raises(InputError) as caught:
            load_config({"feedback": {"annotator": annotator}})
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("rubrics", "message"),
        [
            ({}, "rubrics: beauty is no attribute of a public data set, and has no rubric; say"),
            ({"beauty": {"text": "?"}}, "rubrics.beauty: is no attribute of a public data set, an"),
            ({"beauty": {"text": "1: none.", "scale": [1, 9]}}, None),
        ],
    )
    def test_an_attribute_of_ones_own_needs_a_rubric(self, rubrics, message):
        overlay = {
            "objectives": [
                {"name": "beauty", "outputs": {"beauty": 1}},
                {"name": "verbosity", "outputs": {"helpsteer-verbosity": 1}},
            ],
            "reward_model": {"attributes": [*load_config().reward_model.attributes, "beauty"]},
            "feedback": {"annotator": {"kind": "endpoint", "model": "m", "rubrics": rubrics,
                                       "base_url": "http://localhost/v1"}},
        }  # fmt: skip
        if message is None:
            assert load_config(overlay).rated_attributes == ["beauty", "helpsteer-verbosity"]
            return
        with pytest.raises(InputError) as caught:
            load_config(overlay)
        assert message in str(caught.value)

    def test_the_documented_annotator_is_one(self):
        text = (CLONE / "docs/feedback.md").read_text(encoding="utf-8")
        [snippet] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        config = load_config(yaml.safe_load(snippet))
        assert config.feedback.annotator.kind == "endpoint"

    def test_all_wrong_keys_are_listed_at_once(self):
        with pytest.raises(InputError) as caught:
            load_config({"seed": -1, "shards": 0, "treads": 1})
        assert len(str(caught.value).splitlines()) == 4

    def test_a_missing_key_is_named(self, monkeypatch):
        whole = read_yaml(CLONE / "config.yaml")
        del whole["dpa"]["iterations"]
        monkeypatch.setattr(
            "dpa.config.load.read_yaml",
            lambda path, *hint: whole if path.name == "config.yaml" else read_yaml(path, *hint),
        )
        with pytest.raises(InputError, match=r"dpa\.iterations: missing; see config\.yaml"):
            load_config()

    @pytest.mark.parametrize(
        ("ratings", "message"),
        [
            ([TABLE, TABLE], "names must be unique"),
            ([TABLE | {"attributes": {}}], "attributes"),
            ([TABLE | {"colums": {}}], "colums: unknown key"),
            (
                [TABLE | {"attributes": {"q": {"column": "stars", "from": [1, 5]}}}],
                "mine has attributes ['q'] that are not in reward_model.attributes; add them there",
            ),
            (
                [TABLE | {"attributes": {"quality": {"column": "stars", "from": [3, 3]}}}],
                "low and high must differ",
            ),
            ([{**TABLE, "format": "tabel"}], "'tabel'"),
        ],
    )
    def test_wrong_ratings(self, experiment, ratings, message):
        with pytest.raises(InputError) as caught:
            experiment({"data": {"ratings": ratings}})
        assert message in str(caught.value)

    def test_a_public_data_set_needs_its_outputs(self, experiment):
        ratings = {"name": "hs", "format": "helpsteer", "train": {"path": "x.jsonl"}}
        overlay = {"data": {"ratings": [ratings]}, "reward_model": {"attributes": ["quality"]}}
        with pytest.raises(InputError, match=r"hs has attributes .*helpsteer-verbosity"):
            experiment(overlay)

    @pytest.mark.parametrize("value", [1e-300, 0.001, 1000.0])
    @pytest.mark.parametrize("key", ["sampling", "evaluation", "alpacaeval", "rewardbench"])
    def test_a_temperature_that_samples_garbage(self, experiment, key, value):
        with pytest.raises(InputError, match=rf"{key}\.temperature: .*between 0\.01 and 100"):
            experiment({"extends": "quickstart", key: {"temperature": value}})
        if key != "sampling":
            assert experiment({"extends": "quickstart", key: {"temperature": 0}})

    @pytest.mark.parametrize("name", ["", " ", "a,b", "a\nb", "a\tb", "{policy}", " a", "a "])
    def test_an_output_name_that_breaks_lists(self, experiment, name):
        with pytest.raises(InputError, match=r"reward_model\.attributes\.10: "):
            experiment({"data": {"train_prompts": [], "validation_prompts": []}}, (name,))

    @pytest.mark.parametrize("name", ["published", "benchmarks", "judgements"])
    def test_a_name_whose_folder_is_not_the_experiments(self, tmp_path, name):
        (tmp_path / f"{name}.yaml").write_text("extends: quickstart\n")
        with pytest.raises(InputError, match=f"results/{name} is no experiment's folder"):
            load_config({"experiment": str(tmp_path / f"{name}.yaml")})

    def test_prompts_of_figures_that_the_world_has_not(self, experiment):
        with pytest.raises(InputError, match=r"figures\.prompts: position 5, .* 5 validation"):
            experiment(
                {"extends": "quickstart", "figures": {"prompts": [0, 5]},
                 "world": {"validation_prompts": 5}}
            )  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("seed: 1:30", r"seed: .*'1:30'"),
            ("seed: 2024-01-02", r"seed: .*'2024-01-02'"),
            ("seed: 1_000.5", r"seed: .*'1_000.5'"),
            ("world: no", r"world: .*'no'"),
        ],
    )
    def test_words_that_yaml_once_read_otherwise(self, tmp_path, text, message):
        (tmp_path / "mine.yaml").write_text(f"extends: quickstart\n{text}\n")
        with pytest.raises(InputError, match=message):
            load_config({"experiment": str(tmp_path / "mine.yaml")})

    @pytest.mark.parametrize(
        ("overlay", "message"),
        [
            ({"shards": 10**5}, r"some 1,000,030 jobs .1 seeds, 4 iterations .* 100000 shards"),
            ({"dpa": {"iterations": 10**9}}, "more than the 20,000 that can be planned"),
            ({"seed": list(range(5000))}, "5000 seeds"),
            ({"evaluation": {"directions": 10**9}}, r"evaluation\.directions: .*equal to 1000"),
            ({"alpacaeval": {"prompts": 10**400}}, r"alpacaeval\.prompts: "),
            ({"dpa": {"responses_per_direction": 10**30}}, r"dpa\.responses_per_direction: "),
            ({"dpa": {"schedule": {"epochs": 1e300}}}, r"dpa\.schedule\.epochs: "),
        ],
    )
    def test_sizes_that_no_run_has_are_refused_at_once(self, experiment, overlay, message):
        started = time.monotonic()
        with pytest.raises(InputError, match=message):
            experiment({"extends": "quickstart", "methods": ["dpa"], **overlay})
        assert time.monotonic() - started < 30  # unbounded: minutes, or no memory left

    def test_unknown_experiment(self):
        with pytest.raises(InputError, match=r"nope\.yaml: no such file \(known .*quickstart"):
            load_config({"experiment": "nope"})

    @pytest.mark.parametrize(("content", "message"), [("a: [", "line 1"), ("- a", "mapping")])
    def test_files_that_are_no_mapping(self, tmp_path, content, message):
        (tmp_path / "mine.yaml").write_text(content)
        with pytest.raises(InputError, match=message):
            load_config({"experiment": str(tmp_path / "mine.yaml")})


def test_loading_is_light():
    heavy = "torch", "transformers", "pandas", "scipy", "datasets", "pyarrow"
    code = f"import sys, dpa.config; print(*sorted(set({heavy}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=CLONE, capture_output=True, text=True)
    assert result.stdout == "\n"


def test_root_is_the_repository():
    assert (Path(CLONE) / "config.yaml").exists()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_shipped_baselines_have_as_many_iterations_as_dpa(path):
    config = load_config({"experiment": str(path)})
    iterations = {
        "rsf": config.rsf.iterations,
        "reward_soup": config.reward_soup.iterations,
        "ric": config.ric.iterations,
        # It starts from DPA's first.
        "directional_dpo": config.directional_dpo.iterations
        + (config.directional_dpo.start == "dpa"),
    }
    found = {name: n for name, n in iterations.items() if name in config.methods}
    assert found == dict.fromkeys(found, config.dpa.iterations)
