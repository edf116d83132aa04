"""What all trainings share: arguments, callbacks, resuming after a kill, and saving.

A kind of training is a subclass of `Training`: its rows, its Trainer, what its sidecar says.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from dpa.artefacts.outputs import Fingerprint
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar
from dpa.attention import choose_attention
from dpa.config.chat import ModelsConfig
from dpa.config.trainer import ScheduleConfig, TrainerConfig
from dpa.errors import InputError, writing
from dpa.models import AnyModel, ModelRef, load_checkpoint_config, load_model
from dpa.runtime.gpus import require_gpu
from dpa.runtime.log import Progress, log
from dpa.text.tokenization import ChatTokenizer
from dpa.training.checkpoints import CheckpointCallback, Checkpoints, training_fingerprint
from dpa.training.memory import (
    FINETUNING,
    GIB,
    Held,
    recomputes,
    shape_of_config,
    stage_memory,
)
from dpa.training.processes import is_main_process, process_state, shard_on_cpu
from dpa.training.saving import repair_generation, save_checkpoint
from dpa.training.tracking import (
    check_tracker,
    tracker_arguments,
    tracker_environment,
    trackers_of,
)

#: Of transformers: FSDP2 by decoder layer; every process writes its part of a checkpoint.
SHARDING = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "reshard_after_forward": True,
    "state_dict_type": "SHARDED_STATE_DICT",
}


@dataclass(frozen=True)
class TrainingJob:
    """What every training is given."""

    start: Any
    """A ModelRef, or a model made here."""
    output: Path
    trainer: TrainerConfig
    schedule: ScheduleConfig
    seed: int
    inputs: tuple[Path | str, ...] = ()
    """What the rows were made from, for the sidecar."""
    models: ModelsConfig | None = None
    """How chats become tokens; None: as config.yaml says."""
    furnish: Callable[[Path, dict[str, Any]], None] | None = None
    """Adds to the finished model's folder what it is steered by; given the sidecar's details."""


class Training(ABC):
    """A kind of training, with its rows."""

    job: TrainingJob
    tokenizer: Any
    rows: Iterable[Any]
    """All that it trains on, dicts of numbers or texts."""
    row_counts: RowCounts
    settings: dict[str, Any]
    """What determines the result besides the job and the rows (JSON values)."""
    details: dict[str, Any]
    """For the sidecar."""

    @abstractmethod
    def make_trainer(self, folder: Path) -> Any:
        """The Trainer, with its checkpoints in a folder."""

    def save(self, trainer: Any, folder: Path) -> None:
        """Fill a folder with the finished model; called by every process, the main one writes."""
        save_trained_policy(trainer, self.tokenizer, self.job.trainer, folder)

    def write_sidecars(self, folder: Path, trained: dict[str, Any]) -> None:
        """Called by the main process with the folder that holds the model until it is in place."""
        details = {**self.details, **trained}
        if self.job.furnish is not None:
            self.job.furnish(folder, details)
        write_sidecar(self.job.output, self.job.inputs, self.row_counts, content=folder, **details)

    def callback(self) -> "ProgressCallback":
        """Shows progress."""
        return ProgressCallback()

    def fingerprint(self) -> Fingerprint:
        """What determines the trained model."""
        job = self.job
        return training_fingerprint(
            job.start,
            self.rows,
            trainer=job.trainer.model_dump(),
            schedule=job.schedule.model_dump(),
            seed=job.seed,
            **self.settings,
        )


def run_training(training: Training) -> None:
    """Train, or resume training, and move the finished model to its output.

    The sidecar gets steps, mean loss, loss curve ([step, mean loss since the step before]) and what
    the callback adds. Exits with status 143 when a SIGTERM ended the training.
    """
    output = training.job.output
    is_main_process()  # takes the GPU
    if isinstance(training.job.start, ModelRef):  # a base model from scratch asks for none
        require_gpu()
    with writing(output):
        checkpoints = Checkpoints(output, training.fingerprint)
    try:
        with writing(output):
            trained = checkpoints.trained()
        if trained is None:
            _train(training, checkpoints)
            trained = checkpoints.trained()
            assert trained is not None
        else:
            log.info("%s is trained already, but was not in place", output)
        with writing(output):
            checkpoints.finish(lambda folder: training.write_sidecars(folder, trained))
    finally:
        checkpoints.close()


def _train(training: Training, checkpoints: Checkpoints) -> None:
    """Train, or resume training, and keep the finished model; see run_training."""
    from transformers import PrinterCallback

    output = training.job.output
    if names := trackers_of(training.job.trainer):
        for name in names:
            check_tracker(name)
        os.environ.update(tracker_environment(output))
    trainer = training.make_trainer(checkpoints.folder)
    progress, ends = training.callback(), CheckpointCallback(checkpoints)
    trainer.remove_callback(PrinterCallback)
    if hasattr(trainer, "set_epoch"):
        trainer.add_callback(EpochOrder(trainer.set_epoch))
    trainer.add_callback(progress)
    trainer.add_callback(ends)
    if not is_main_process():
        # Each process draws noise of its own (token dropout), from here on.
        torch.manual_seed(trainer.args.seed + process_state().process_index)
    # Checkpoints are saved by transformers itself.
    repair_generation(getattr(trainer.model, "generation_config", None), str(training.job.start))
    with writing(output):
        trainer.train(resume_from_checkpoint=str(checkpoints.last) if checkpoints.last else None)
    if ends.stopped:
        raise SystemExit(143)
    steps = trainer.state.global_step
    curve = loss_curve(trainer.state.log_history, trainer.args, steps)
    before = [0, *(step for step, _ in curve)]
    total = sum(loss * (step - start) for (step, loss), start in zip(curve, before, strict=False))
    mean = total / max(steps, 1)
    if not math.isfinite(mean):
        raise InputError(f"training diverged: mean loss {mean}; lower the stage's learning_rate")
    details = {
        "steps": steps,
        "train_loss": round(mean, 5),
        "loss_curve": [[step, round(loss, 5)] for step, loss in curve],
        **progress.summary(),
    }
    with writing(output):
        checkpoints.keep(lambda folder: training.save(trainer, folder), details)
    process_state().wait_for_everyone()


def trainer_arguments(
    job: TrainingJob, output_dir: Path, held: Held = FINETUNING
) -> dict[str, Any]:
    """Arguments that every Trainer of the pipeline gets.

    Gradient accumulation is derived so that the global batch is the schedule's batch_size on any
    number of processes. Raises InputError when that does not divide.
    """
    config, schedule = job.trainer, job.schedule
    processes = process_state().num_processes
    rows, rest = divmod(schedule.batch_size, processes)
    if rest:
        raise InputError(
            f"batch_size {schedule.batch_size} is not a multiple of the {processes} processes; "
            "change compute.training_processes or the stage's batch_size"
        )
    at_once = min(config.per_device_batch_size, rows)
    if rows % at_once:
        raise InputError(
            f"batch_size {schedule.batch_size} is not a multiple of {at_once * processes} "
            "(per_device_batch_size times processes); change trainer.per_device_batch_size"
        )
    accumulation = rows // at_once
    assert processes * at_once * accumulation == schedule.batch_size
    log.info(
        "global batch %d = %d processes x %d rows x %d accumulation steps",
        schedule.batch_size,
        processes,
        at_once,
        accumulation,
    )
    sharded = shards(config)
    if sharded:
        log.info("weights, gradients and optimiser sharded over %d processes", processes)
    recompute = recomputes_here(job, held)
    return {
        "output_dir": str(output_dir),
        "seed": job.seed % 2**32,
        "use_cpu": not torch.cuda.is_available(),
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": schedule.learning_rate,
        "num_train_epochs": schedule.epochs,
        "lr_scheduler_type": schedule.lr_scheduler,
        "warmup_steps": schedule.warmup_steps,
        "adam_beta1": config.adam_betas[0],
        "adam_beta2": config.adam_betas[1],
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "bf16": config.bf16,
        # A sharded model recomputes activations inside its shards.
        "gradient_checkpointing": recompute and not sharded,
        "fsdp": sharded,
        "fsdp_config": SHARDING | {"activation_checkpointing": recompute} if sharded else None,
        # Or each process would accumulate the gradient of the whole model.
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": sharded}},
        "ddp_find_unused_parameters": False,
        "use_liger_kernel": torch.cuda.is_available() and find_spec("liger_kernel") is not None,
        "logging_steps": 50,
        "logging_nan_inf_filter": False,  # or the progress callback would never see a NaN
        "save_strategy": "steps" if config.save_steps else "no",
        "save_steps": config.save_steps or 0,
        "save_total_limit": 2,  # the newest may be incomplete
        **tracker_arguments(job.output, trackers_of(config)),
        "disable_tqdm": True,
    }


def recomputes_here(job: TrainingJob, held: Held) -> bool:
    """Whether this training recomputes activations; `auto`: where its GPU has no room for them.

    By the GPU's whole memory, not by what happens to be free: as plan_run says. A CPU has room.
    """
    setting = job.trainer.gradient_checkpointing
    if setting != "auto":
        return setting
    if not torch.cuda.is_available():
        return False
    given = isinstance(job.start, ModelRef)
    config = load_checkpoint_config(job.start) if given else job.start.config
    try:
        shape = shape_of_config(config.to_dict())
    except (KeyError, TypeError, ArithmeticError, ValueError):
        return True  # of another kind than the arithmetic knows
    _, memory = torch.cuda.mem_get_info()
    kept = stage_memory(
        shape,
        job.trainer,
        job.schedule,
        held,
        processes=process_state().num_processes,
        recompute=False,
    )
    recompute = recomputes(setting, kept, memory / GIB)
    log.info(
        "%s activations: kept, all would take %s of %.0f GiB",
        "recomputes" if recompute else "keeps",
        kept,
        memory / GIB,
    )
    return recompute


def shards(config: TrainerConfig) -> bool:
    """Whether the model is sharded: configured, and there is more than one process."""
    return config.sharding == "fsdp" and process_state().num_processes > 1


def shard_policy(arguments: Any, config: TrainerConfig) -> Any:
    """A Trainer's arguments, with what their own fields cannot say about sharding.

    Gradients are summed in fp32, and outputs (losses, log-probabilities) stay as they are: by
    default both would be rounded to bf16.
    """
    if arguments.fsdp_plugin_args is not None:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if config.bf16 else None,
            reduce_dtype=torch.float32,
            output_dtype=None,
            cast_forward_inputs=False,
        )
        shard_on_cpu()
    return arguments


def lora_config(config: TrainerConfig) -> Any:
    """peft's configuration, or None for full fine-tuning."""
    if config.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules="all-linear",  # all but the output head
        task_type="CAUSAL_LM",
    )


class ProgressCallback(TrainerCallback):
    """Progress lines instead of progress bars; a loss that is not a number ends the run."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.progress = Progress(state.max_steps, "steps", done=state.global_step)
        self.loss: float | None = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.loss = logs["loss"]
            if not math.isfinite(self.loss):
                raise InputError(
                    f"training diverged: loss {self.loss} at step {state.global_step}; "
                    "lower the stage's learning_rate"
                )

    def summary(self) -> dict[str, Any]:
        """What the sidecar records besides steps and losses (JSON values)."""
        return {}

    def note(self) -> str:
        """What the progress line says besides the number of steps."""
        return "" if self.loss is None else f", loss {self.loss:.4f}"

    def on_step_end(self, args, state, control, **kwargs):
        self.progress.advance(1, self.note())


class EpochOrder(TrainerCallback):
    """Tells the sampler its epoch: a resumed Trainer on several processes fails to."""

    def __init__(self, set_epoch: Callable[[int], None]):
        self.set_epoch = set_epoch

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.set_epoch(int(state.epoch or 0))


def loss_curve(history: list[dict[str, Any]], arguments: Any, steps: int) -> list[list[Any]]:
    """[step, mean loss of the steps since the entry before], the same with and without a SIGTERM.

    Where one ended the training it was logged too; that entry goes into the next one.
    """
    curve: list[list[Any]] = []
    last, since, total = 0, 0, 0.0
    for entry in history:
        if "loss" not in entry:
            continue
        step = entry["step"]
        total += entry["loss"] * (step - since)
        since = step
        saved = arguments.save_steps and step % arguments.save_steps == 0
        if saved or step % arguments.logging_steps == 0 or step == steps:
            curve.append([step, total / (step - last)])
            last, total = step, 0.0
    return curve


def load_policy(model: AnyModel, config: TrainerConfig, *, packed: bool = False) -> Any:
    """A causal LM for training: fp32 master weights (bf16 compute is the Trainer's).

    Under LoRA the weights are frozen and take the computation's own type. `packed` says that
    several rows will share a sequence.
    """
    half = config.bf16 and torch.cuda.is_available()
    attention = choose_attention(
        load_checkpoint_config(model), config.attention, packed=packed, half=half
    )
    log.info("attention: %s", attention)
    frozen = config.lora is not None and config.bf16
    return load_model(
        AutoModelForCausalLM,
        model,
        dtype=torch.bfloat16 if frozen else torch.float32,
        attn_implementation=attention,
    )


def load_training_chat(job: TrainingJob) -> ChatTokenizer:
    """The tokenizer of the model that a job starts from, with a pad token."""
    chat = ChatTokenizer.load(job.start, job.models)
    if chat.tokenizer.pad_token is None:
        chat.tokenizer.pad_token = chat.tokenizer.unk_token or chat.tokenizer.eos_token
    return chat


def save_trained_policy(trainer: Any, tokenizer: Any, config: TrainerConfig, folder: Path) -> None:
    """`save_policy` of a trainer's model, gathered from its shards, with LoRA merged.

    Called by every process; the main one writes. What was computed in bf16 is saved in bf16.
    """
    model = gathered(trainer, lambda: plain_policy(trainer.model.config, config))
    if model is None:
        return
    if config.lora is not None:
        model = model.merge_and_unload()
    save_policy(model.to(torch.bfloat16) if config.bf16 else model, tokenizer, folder)


def plain_policy(architecture: Any, config: TrainerConfig) -> Any:
    """A policy as it is trained, without weights, for those of a sharded one."""
    model = AutoModelForCausalLM.from_config(architecture)
    if config.lora is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, lora_config(config))


def gathered(trainer: Any, make: Callable[[], Any]) -> Any:
    """The trained model in the main process, None in the others; `make` makes an empty one.

    A collective operation where the model is sharded.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not trainer.is_fsdp_enabled:
        return model if is_main_process() else None
    state = trainer.accelerator.get_state_dict(trainer.model)
    if not is_main_process():
        return None
    with torch.device("meta"):
        whole = make()
    missing = [name for name in whole.state_dict() if name not in state]
    whole.load_state_dict(state, strict=False, assign=True)
    inner = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    if hasattr(inner, "tie_weights"):
        inner.tie_weights()
    assert all(not weight.is_meta for weight in whole.parameters()), missing
    if hasattr(model, "generation_config"):
        inner.generation_config = model.generation_config
    return whole


def save_policy(model: Any, tokenizer: Any, folder: Path) -> None:
    """A folder that plain AutoModelForCausalLM and AutoTokenizer load."""
    model.config.use_cache = True
    save_checkpoint(model, tokenizer, folder)
