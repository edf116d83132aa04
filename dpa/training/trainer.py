"""What all trainings share: arguments, callbacks, going on after a kill, and saving."""

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from dpa import models
from dpa.config.trainer import ScheduleConfig, TrainerConfig
from dpa.errors import InputError, writing
from dpa.models import load_model
from dpa.runtime.log import Progress, log
from dpa.training.checkpoints import CheckpointCallback, Checkpoints
from dpa.training.processes import is_main_process, process_state, shard_on_cpu

#: Of transformers: FSDP2 by decoder layer; every process writes its part of a checkpoint.
SHARDING = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "reshard_after_forward": True,
    "state_dict_type": "SHARDED_STATE_DICT",
}


def trainer_arguments(
    training: TrainerConfig, schedule: ScheduleConfig, seed: int, output_dir: Path
) -> dict[str, Any]:
    """Arguments that every Trainer of the pipeline gets.

    Gradient accumulation is derived so that the global batch is the schedule's batch_size on any
    number of processes. Raises InputError when that does not divide.
    """
    processes = process_state().num_processes
    rows, rest = divmod(schedule.batch_size, processes)
    if rest:
        raise InputError(
            f"batch_size {schedule.batch_size} is not a multiple of the {processes} processes; "
            "change compute.training_processes or the stage's batch_size"
        )
    at_once = min(training.per_device_batch_size, rows)
    if rows % at_once:
        raise InputError(
            f"batch_size {schedule.batch_size} is not a multiple of {at_once * processes} "
            "(per_device_batch_size times processes); change training.per_device_batch_size"
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
    sharded = shards(training)
    if sharded:
        log.info("weights, gradients and optimiser sharded over %d processes", processes)
    return {
        "output_dir": str(output_dir),
        "seed": seed % 2**32,
        "use_cpu": not torch.cuda.is_available(),
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": schedule.learning_rate,
        "num_train_epochs": schedule.epochs,
        "lr_scheduler_type": schedule.schedule,
        "warmup_steps": schedule.warmup_steps,
        "adam_beta1": training.adam_betas[0],
        "adam_beta2": training.adam_betas[1],
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "bf16": training.bf16,
        # A sharded model recomputes activations inside its shards.
        "gradient_checkpointing": training.gradient_checkpointing and not sharded,
        "fsdp": sharded,
        "fsdp_config": SHARDING | {"activation_checkpointing": training.gradient_checkpointing}
        if sharded
        else None,
        # Or each process would accumulate the gradient of the whole model.
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": sharded}},
        "ddp_find_unused_parameters": False,
        "use_liger_kernel": torch.cuda.is_available() and find_spec("liger_kernel") is not None,
        "logging_steps": 50,
        "logging_nan_inf_filter": False,  # or the progress callback would never see a NaN
        "save_strategy": "steps" if training.save_steps else "no",
        "save_steps": training.save_steps or 0,
        "save_total_limit": 2,  # the newest may be incomplete
        "report_to": "none",
        "disable_tqdm": True,
    }


def shards(training: TrainerConfig) -> bool:
    """Whether the model is sharded: configured, and there is more than one process."""
    return training.sharding == "fsdp" and process_state().num_processes > 1


def shard_policy(arguments: Any, training: TrainerConfig) -> Any:
    """A Trainer's arguments, with what their own fields cannot say about sharding.

    Gradients are summed in fp32, and outputs (losses, log-probabilities) stay as they are: by
    default both would be rounded to bf16.
    """
    if arguments.fsdp_plugin_args is not None:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if training.bf16 else None,
            reduce_dtype=torch.float32,
            output_dtype=None,
            cast_forward_inputs=False,
        )
        shard_on_cpu()
    return arguments


def attention_implementation(training: TrainerConfig) -> str:
    """`attention` for transformers; `auto` is FlashAttention where it is installed, else sdpa."""
    if training.attention != "auto":
        return training.attention
    flash = torch.cuda.is_available() and training.bf16 and find_spec("flash_attn") is not None
    return "flash_attention_2" if flash else "sdpa"


def lora_config(training: TrainerConfig) -> Any:
    """peft's configuration, or None for full fine-tuning."""
    if training.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=training.lora.rank,
        lora_alpha=training.lora.alpha,
        lora_dropout=training.lora.dropout,
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
        """What the sidecar is to be told besides steps and losses (JSON values)."""
        return {}

    def on_step_end(self, args, state, control, **kwargs):
        self.progress.advance(1, "" if self.loss is None else f", loss {self.loss:.4f}")


class EpochOrder(TrainerCallback):
    """Tells the sampler its epoch: a resumed Trainer on several processes fails to."""

    def __init__(self, set_epoch: Callable[[int], None]):
        self.set_epoch = set_epoch

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.set_epoch(int(state.epoch or 0))


def train_and_save(
    output: Path,
    fingerprint: Callable[[], str],
    make_trainer: Callable[[Path], Any],
    save: Callable[[Any, Path], None],
    sidecar: Callable[[Path, dict[str, Any]], None],
    progress: ProgressCallback | None = None,
) -> None:
    """Train, or go on training, and move the finished model to `output`.

    `make_trainer` gets the folder for checkpoints; `save` is called by every process with the
    trainer and the folder to fill, for the main process to write. `sidecar` is called by the main
    process with the folder that holds the model until then, and steps, mean loss, loss curve
    ([step, mean loss since the step before]) and what `progress` adds. Exits with status 143 when a
    SIGTERM ended the training.
    """
    with writing(output):
        checkpoints = Checkpoints(output, fingerprint)
        details = checkpoints.trained()
    if details is None:
        _train(output, checkpoints, make_trainer, save, progress or ProgressCallback())
        details = checkpoints.trained()
        assert details is not None
    else:
        log.info("%s is trained already, but was not in place", output)
    with writing(output):
        checkpoints.finish(lambda folder: sidecar(folder, details))


def _train(
    output: Path,
    checkpoints: Checkpoints,
    make_trainer: Callable[[Path], Any],
    save: Callable[[Any, Path], None],
    progress: ProgressCallback,
) -> None:
    """Train, or go on training, and keep the finished model; see train_and_save."""
    from transformers import PrinterCallback

    trainer = make_trainer(checkpoints.folder)
    ends = CheckpointCallback(checkpoints)
    trainer.remove_callback(PrinterCallback)
    if hasattr(trainer, "set_epoch"):
        trainer.add_callback(EpochOrder(trainer.set_epoch))
    trainer.add_callback(progress)
    trainer.add_callback(ends)
    if not is_main_process():
        # Each process draws noise of its own (token dropout), from here on.
        torch.manual_seed(trainer.args.seed + process_state().process_index)
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
        checkpoints.keep(lambda folder: save(trainer, folder), details)
    process_state().wait_for_everyone()


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


def load_policy(path: str, revision: str | None, training: TrainerConfig) -> Any:
    """A causal LM for training: fp32 master weights (bf16 compute is the Trainer's).

    Under LoRA the weights are frozen and take the computation's own type.
    """
    frozen = training.lora is not None and training.bf16
    return load_model(
        AutoModelForCausalLM,
        path,
        revision,
        dtype=torch.bfloat16 if frozen else torch.float32,
        attn_implementation=attention_implementation(training),
    )


def load_training_tokenizer(path: str, revision: str | None) -> Any:
    """The model's tokenizer. Raises InputError without a chat template or a pad token."""
    tokenizer = models.load_tokenizer(path, revision)
    if not tokenizer.chat_template:
        raise InputError(f"{path}: the tokenizer has no chat template; choose a chat model")
    models.check_chat_template(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def save_trained_policy(
    trainer: Any, tokenizer: Any, training: TrainerConfig, folder: Path
) -> None:
    """`save_policy` of a trainer's model, gathered from its shards, with LoRA merged.

    Called by every process; the main one writes. What was computed in bf16 is saved in bf16.
    """
    model = gathered(trainer, lambda: plain_policy(trainer.model.config, training))
    if model is None:
        return
    if training.lora is not None:
        model = model.merge_and_unload()
    save_policy(model.to(torch.bfloat16) if training.bf16 else model, tokenizer, folder)


def plain_policy(config: Any, training: TrainerConfig) -> Any:
    """A policy as it is trained, without weights, for those of a sharded one."""
    model = AutoModelForCausalLM.from_config(config)
    if training.lora is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, lora_config(training))


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
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
