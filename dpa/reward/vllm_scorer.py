"""Scoring with vLLM: the reward model as a classifier that pools each input's last token."""

from typing import Any

import numpy as np

from dpa.generation.vllm_engine import MAX_SEQUENCES, ON_CPU, close_vllm, import_vllm
from dpa.models import ModelRef, check_weights, is_trusted, loading, refuse_pickles
from dpa.reward.inputs import RewardInputs
from dpa.reward.scorer import InputRow, Scorer


class VllmScorer(Scorer):
    """A reward model in vLLM.

    bfloat16 on a GPU, float32 on a CPU; the head is float32 on both, as in transformers' engine.
    The inputs of a chunk are handed over in one go, and what they have in common is computed once
    (vLLM's prefix cache).
    """

    def __init__(
        self,
        model: ModelRef,
        inputs: RewardInputs,
        names: list[str],
        tokens_per_batch: int,
    ) -> None:
        super().__init__(inputs, names)
        LLM, on_cpu = import_vllm("reward_model.engine")
        from transformers import AutoModelForSequenceClassification
        from vllm.config import PoolerConfig

        refuse_pickles(model.path)
        check_weights(AutoModelForSequenceClassification, model)
        with loading(model, "vLLM refuses it"):
            self.llm = LLM(
                model=model.path,
                revision=model.revision,
                tokenizer_revision=model.revision,
                trust_remote_code=is_trusted(model),
                load_format="safetensors",
                runner="pooling",
                convert="classify",
                # Or scores would pass through a softmax.
                pooler_config=PoolerConfig(use_activation=False),
                dtype="float32" if on_cpu else "bfloat16",
                max_model_len=self.max_length,
                # A pass is bound by its tokens; of short inputs it takes as many as vLLM allows.
                max_num_batched_tokens=max(self.max_length, tokens_per_batch, MAX_SEQUENCES),
                max_num_seqs=MAX_SEQUENCES,
                enable_prefix_caching=True,
                **(ON_CPU if on_cpu else {}),
            )

    def score_stream(self, chunks: Any, groups_of: Any, *, apart: bool = False) -> Any:
        """As the other engine's, but groups are never apart: vLLM makes its own batches."""
        return super().score_stream(chunks, groups_of)

    def score_groups(self, groups: Any) -> Any:
        """As the other engine's, but all groups at once."""
        return iter(self.score_chunk(list(groups)))

    def close(self) -> None:
        """Free the model."""
        close_vllm(self)

    def _score(self, rows: list[InputRow], places: dict[tuple[int, str], int]) -> np.ndarray:
        from vllm import TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=ids) for ids, _ in rows]
        scores = np.empty((len(rows), len(self.names)))
        if prompts:
            outputs = self.llm.classify(prompts, use_tqdm=False)
            scores[:] = [output.outputs.probs for output in outputs]
        self.on_batch()
        return scores
