"""An experiment and assumptions with round numbers, for plans that can be worked by hand."""


def hub(path, split):
    return {"path": path, "revision": "0" * 40, "split": split}


#: 1,000 prompts a half, 20 validation prompts and round token counts.
OVERLAY = {
    "shards": 4,
    "compute": {"gpu": True, "training_processes": 8},
    "plan": {"gpu_memory_gb": 48},
    "trainer": {"sharding": "fsdp"},
    "data": {
        "ratings": [
            {"name": "own", "format": "ultrafeedback", "train": hub("me/ratings", "train")}
        ],
        "train_prompts": [hub("me/prompts", "train")],
        "validation_prompts": [hub("me/prompts", "validation")],
        "original_responses": "own",
    },
    "base_model": {"path": "mistralai/Mistral-7B-v0.1", "revision": "0" * 40},
    "sft": {"path": "HuggingFaceH4/mistral-7b-sft-beta", "revision": "0" * 40},
    "sampling": {"max_prompt_tokens": 500, "max_new_tokens": 300},
}
ROUND = {
    "tokens": {"response": 200, "system": 80, "reward_instruction": 50},
    "data_sets": {
        "me/ratings": {
            "train": {"rows": 2500, "responses": 4, "prompt_tokens": 100, "response_tokens": 250,
                      "bytes": 1000}
        },
        "me/prompts": {
            "train": {"rows": 2000, "prompt_tokens": 100, "response_tokens": 0, "bytes": 2000},
            "validation": {"rows": 20, "prompt_tokens": 100, "response_tokens": 0, "bytes": 30},
        },
    },
}  # fmt: skip
