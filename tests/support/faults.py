"""Faults that are put into a script's process before it runs (see script_processes.py)."""

import os
import signal
from typing import Any

#: Where `trace` notes the beginning of each chunk of work, one byte each.
TRACE = "DPA_TEST_TRACE"


def trace() -> None:
    """Note each chunk that is begun: what a kill makes the next run repeat is counted so."""
    from dpa.generation.transformers_engine import TransformersEngine
    from dpa.reward.transformers_scorer import TransformersScorer

    file = os.open(os.environ[TRACE], os.O_WRONLY | os.O_APPEND)

    def noted(kind: Any, name: str) -> None:
        work = getattr(kind, name)

        def wrapped(self: Any, chunk: Any) -> Any:
            os.write(file, b".")
            return work(self, chunk)

        setattr(kind, name, wrapped)

    noted(TransformersEngine, "_generate_chunk")
    noted(TransformersScorer, "_score_chunk")


def engine_raises() -> None:
    """The engine breaks at its second chunk."""
    from dpa.generation.transformers_engine import TransformersEngine

    work, done = TransformersEngine._generate_chunk, []

    def wrapped(self: Any, chunk: Any) -> Any:
        done.append(chunk)
        if len(done) == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return work(self, chunk)

    TransformersEngine._generate_chunk = wrapped  # type: ignore[method-assign]


def engine_returns_nothing() -> None:
    """The engine gives responses without tokens, not even an end token."""
    import torch

    from dpa.generation.transformers_engine import TransformersEngine

    def wrapped(self: Any, chunk: Any) -> Any:
        rows = sum(len(request.seeds) for request in chunk)
        return torch.full((rows, self.settings.max_new_tokens), -1).numpy()

    TransformersEngine._generate_chunk = wrapped  # type: ignore[method-assign]


def no_memory() -> None:
    """The first forward pass of a model does not fit."""
    import torch
    from transformers import MistralModel

    def forward(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    MistralModel.forward = forward  # type: ignore[method-assign]


def killed_before_the_sidecar() -> None:
    """Killed when the artefact is done and its sidecar is not."""
    import dpa.generation.sample
    import dpa.reward.score_samples
    import dpa.training.trainer

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    for module in (dpa.generation.sample, dpa.reward.score_samples, dpa.training.trainer):
        module.write_sidecar = wrapped  # type: ignore[attr-defined]


def waits() -> None:
    """Takes its time before its second chunk, so that another process can come by."""
    import time

    from dpa.generation.transformers_engine import TransformersEngine

    work, done = TransformersEngine._generate_chunk, []

    def wrapped(self: Any, chunk: Any) -> Any:
        done.append(chunk)
        if len(done) == 2:
            time.sleep(4)
        return work(self, chunk)

    TransformersEngine._generate_chunk = wrapped  # type: ignore[method-assign]


def engine_hangs() -> None:
    """The engine blocks in native code, for ten minutes, in its 20th step."""
    import ctypes

    from dpa.generation.transformers_engine import TransformersEngine

    step, steps = TransformersEngine._step, []

    def stuck(self: Any, *arguments: Any) -> Any:
        steps.append(0)
        if len(steps) == 20:
            ctypes.CDLL(None).sleep(600)
        return step(self, *arguments)

    TransformersEngine._step = stuck  # type: ignore[method-assign]


def judge_hangs() -> None:
    """RewardBench's judge blocks in native code, for ten minutes."""
    import ctypes

    from dpa.evaluation.preference_judge import PreferenceJudge

    def stuck(self: Any, *arguments: Any) -> Any:
        ctypes.CDLL(None).sleep(600)

    PreferenceJudge.token_ids = stuck  # type: ignore[method-assign]


#: Where `keep_gradients` writes the gradients of the first optimiser step.
GRADIENTS = "DPA_TEST_GRADIENTS"


def keep_gradients() -> None:
    """Write the gradients that the first optimiser step is made from, before they are clipped."""
    import numpy as np
    from accelerate import Accelerator

    clip = Accelerator.clip_grad_norm_

    def wrapped(self: Any, parameters: Any, *args: Any, **kwargs: Any) -> Any:
        parameters = list(parameters)
        if not os.path.exists(os.environ[GRADIENTS]):
            found = {str(i): p.grad.numpy() for i, p in enumerate(parameters) if p.grad is not None}
            np.savez(os.environ[GRADIENTS], **found)
        return clip(self, parameters, *args, **kwargs)

    Accelerator.clip_grad_norm_ = wrapped  # type: ignore[method-assign]


def killed_before_any_sidecar() -> None:
    """Killed when a file is in place and its sidecar is not."""
    import dpa.artefacts.sidecars

    def killed(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    dpa.artefacts.sidecars.write_sidecar = killed  # type: ignore[assignment]
