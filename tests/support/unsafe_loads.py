"""On which terms a source file loads models, data sets and serialised objects.

dpa/models.py is the one place that calls from_pretrained of models. Whoever loads otherwise (vLLM,
TRL, the hub's client) must pass the same terms: weights from safetensors only, a pinned revision,
no code of the model's own unless dpa.models.is_trusted says so. Anything that unpickles, evaluates
text or starts a shell is refused wherever it stands.
"""

import ast

#: The module that sets the terms, and a benchmark that measures plain transformers, as it is
#: commonly called, on a model that it has just made.
LOADERS = ("dpa/models.py", "benchmarks/measure_scoring.py")

#: Calls that run what they read; by the name under which their package has them.
RUNS_WHAT_IT_READS = {
    "cloudpickle.load", "cloudpickle.loads", "dill.load", "dill.loads", "joblib.load",
    "marshal.load", "marshal.loads", "pandas.read_pickle", "pickle.Unpickler", "pickle.load",
    "pickle.loads", "shelve.open", "torch.hub.load", "torch.jit.load", "torch.load",
    "yaml.unsafe_load", "eval", "exec", "os.popen", "os.system", "subprocess.getoutput",
    "subprocess.getstatusoutput",
}  # fmt: skip
#: Loaders that choose their own terms: there is dpa.models.
OTHER_LOADERS = {
    "peft.load_peft_weights", "peft.utils.load_peft_weights",
    "transformers.pipeline", "transformers.pipelines.pipeline",
}  # fmt: skip
#: What reads from the hub, and the options that it must be given.
FROM_THE_HUB = {
    "datasets.load_dataset": ("revision",),
    "datasets.load_dataset_builder": ("revision",),
    "huggingface_hub.hf_hub_download": ("revision",),
    "huggingface_hub.snapshot_download": ("revision", "allow_patterns"),
}
VLLM = {"LLM", "LLMEngine", "AsyncLLM", "AsyncLLMEngine", "EngineArgs", "AsyncEngineArgs"}
#: TRL's trainers load a reference by the model's name unless they are given one.
REFERENCE_GIVEN = {"trl.DPOTrainer"}
REFERENCE_BY_NAME = {"trl.RLOOConfig", "trl.GRPOConfig", "trl.PPOConfig", "trl.OnlineDPOConfig"}


class Sources:
    """A parsed source file, with its names resolved to the packages that they come from."""

    def __init__(self, text: str) -> None:
        self.tree = ast.parse(text)
        self.origins: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    if one.asname:
                        self.origins[one.asname] = one.name
            elif isinstance(node, ast.ImportFrom):
                for one in node.names:
                    self.origins[one.asname or one.name] = f"{node.module or ''}.{one.name}"
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef) and node.bases:
                for base in map(self.name, node.bases):
                    if base.startswith("trl."):
                        self.origins[node.name] = base

    def name(self, node: ast.AST) -> str:
        """The dotted name of what is called, by its origin; empty when it has none."""
        if isinstance(node, ast.Name):
            return self.origins.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.name(node.value)}.{node.attr}"
        return ""


def asks_whom_to_trust(value: ast.AST | None) -> bool:
    """Whether a trust_remote_code is False, or the allow list's answer."""
    if isinstance(value, ast.Constant):
        return value.value is False
    return isinstance(value, ast.Call) and ast.unparse(value.func).endswith("is_trusted")


def unsafe_loads(text: str, path: str) -> list[str]:
    """What is wrong with a source file, `line: why`; empty when it loads on the common terms."""
    sources = Sources(text)
    found: list[tuple[int, str]] = []
    for node in ast.walk(sources.tree):
        if isinstance(node, ast.Call):
            found += [(node.lineno, why) for why in _call(sources, node, path)]
        elif isinstance(node, ast.Attribute) and node.attr == "from_pretrained":
            # A reference is enough: it may be called elsewhere.
            if path not in LOADERS and sources.name(node.value) != "transformers.GenerationConfig":
                found.append((node.lineno, "from_pretrained: load through dpa.models"))
        elif isinstance(node, ast.Constant) and path not in LOADERS:
            if node.value in ("from_pretrained", "trust_remote_code"):
                found.append((node.lineno, f"{node.value} by its name: only dpa.models may"))
        elif isinstance(node, ast.FunctionDef):
            called = [sources.name(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)]
            last = {name.rpartition(".")[2] for name in called}
            if last & VLLM and "refuse_pickles" not in last:
                found.append((node.lineno, "vLLM without refuse_pickles"))
    return [f"{line}: {why}" for line, why in sorted(found)]


def _call(sources: Sources, node: ast.Call, path: str) -> list[str]:
    name = sources.name(node.func)
    last = name.rpartition(".")[2]
    given = {k.arg: k.value for k in node.keywords}
    text = {key: ast.unparse(value) for key, value in given.items()}
    found = []
    if name in RUNS_WHAT_IT_READS:
        found.append(f"{name} runs what it reads")
    if name in OTHER_LOADERS or last == "load_adapter":
        found.append(f"{name}: load through dpa.models")
    if text.get("allow_pickle", "False") != "False":
        found.append("allow_pickle")
    if text.get("shell", "False") != "False":
        found.append("shell")
    if "weights_only" in text and text["weights_only"] != "True":
        found.append("weights_only")
    if name in ("yaml.load", "yaml.load_all") and not any(
        sources.origins.get(arg, arg).endswith("SafeLoader") or _is_safe_loader(sources, arg)
        for arg in [*map(ast.unparse, node.args[1:]), text.get("Loader", "")]
    ):
        found.append("yaml.load without a safe loader")
    # RunEnvironment loads nothing: it is where is_trusted looks.
    trusts = "trust_remote_code" in given and last != "RunEnvironment"
    if trusts and not asks_whom_to_trust(given["trust_remote_code"]):
        found.append("trust_remote_code: ask dpa.models.is_trusted")
    if "use_safetensors" in text and text["use_safetensors"] != "True":
        found.append("use_safetensors")
    wanted: tuple[str, ...] = FROM_THE_HUB.get(name, ())
    if name == "transformers.GenerationConfig.from_pretrained":
        wanted = ("revision",)
    elif last in VLLM:
        wanted = ("revision", "tokenizer_revision", "trust_remote_code", "load_format")
        if text.get("load_format", "'safetensors'") != "'safetensors'":
            found.append("load_format")
    elif name in REFERENCE_GIVEN:
        wanted = ("model", "ref_model", "processing_class")
    elif name in REFERENCE_BY_NAME:
        wanted = ("model_init_kwargs",)
        if not text.get("model_init_kwargs", "model_options(").startswith("model_options("):
            found.append("model_init_kwargs: take dpa.models.model_options")
    elif name.startswith("trl.") and last.endswith("Trainer"):
        wanted = ("model", "processing_class")
    if name.startswith("trl.") and isinstance(given.get("model"), ast.Constant):
        found.append(f"{name}: load the model through dpa.models")
    missing = [option for option in wanted if option not in given]
    return found + [f"{name} without {option}" for option in missing]


def _is_safe_loader(sources: Sources, name: str) -> bool:
    """Whether a class of this file is a safe loader's."""
    return any(
        isinstance(node, ast.ClassDef)
        and node.name == name
        and any(sources.name(base).endswith("SafeLoader") for base in node.bases)
        for node in ast.walk(sources.tree)
    )
