r"""Fine-tunes a language model with Transformers below Ray Train; the checkpoint is a model folder.

rankflow job submit --name tune --nodes 2 --working-dir examples/jobs -- \
    python finetune.py --model MODEL_FOLDER
rankflow run examples/requests.jsonl --model CHECKPOINT
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import datasets
import ray.data
import ray.train
import torch
from outcome import checkpoint_folder, tell, tidy, use_scratch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.huggingface.transformers import RayTrainReportCallback, prepare_trainer
from ray.train.torch import TorchTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

BATCH = 4


def encode(batch: dict, model: str, length: int) -> dict:
    """Questions and answers as chats of the model, (rows, length); padding has no loss."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            tokenize=False,
        )
        for question, answer in zip(batch["question"], batch["answer"], strict=True)
    ]
    encoded = tokenizer(
        chats, padding="max_length", truncation=True, max_length=length, return_tensors="np"
    )
    labels = encoded["input_ids"].copy()
    labels[encoded["attention_mask"] == 0] = -100
    return {
        "input_ids": encoded["input_ids"],
        "attention_mask": encoded["attention_mask"],
        "labels": labels,
    }


class Steps(TrainerCallback):
    """Tells each step in the log of the job, and keeps the first one."""

    first: int | None = None

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **rest: object,
    ) -> None:
        """Called with the number of steps that are done."""
        known = self.first is not None
        if not known:
            self.first = state.global_step
        if state.is_world_process_zero:
            if not known:
                print(f"from step {state.global_step}", flush=True)
            print(f"step {state.global_step + 1} of {state.max_steps}", flush=True)


def train(config: dict) -> int:
    """Runs on every worker; returns how many steps were done before."""
    use_scratch()
    model = AutoModelForCausalLM.from_pretrained(config["model"], dtype=torch.bfloat16)
    shard = ray.train.get_dataset_shard("train")
    steps = Steps()
    # Saved ones are here only for the moment until Ray Train has put them into the storage.
    with tempfile.TemporaryDirectory() as saved:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=saved,
                # Ray Data counts no rows in advance, so steps are what is counted.
                max_steps=config["steps"],
                per_device_train_batch_size=BATCH,
                learning_rate=2e-5,
                # Its state is small, and so are checkpoints.
                optim="adafactor",
                logging_steps=1,
                save_strategy="steps",
                save_steps=config["save_steps"],
                save_total_limit=1,
                use_cpu=not torch.cuda.is_available(),
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=shard.iter_torch_batches(batch_size=BATCH),
            processing_class=AutoTokenizer.from_pretrained(config["model"]),
            callbacks=[steps],
        )
        # A checkpoint and its metrics go to Ray Train each time that Transformers saves one.
        trainer.add_callback(RayTrainReportCallback())
        trainer = prepare_trainer(trainer)
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            trainer.train()
        else:
            with checkpoint.as_directory() as folder:
                trainer.train(
                    resume_from_checkpoint=str(Path(folder, RayTrainReportCallback.CHECKPOINT_NAME))
                )
    return steps.first or 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder or hub name")
    parser.add_argument("--data", default="data/pairs.jsonl")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--save-steps", type=int, default=2)
    parser.add_argument("--length", type=int, default=48, help="tokens of an example")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    # Read into memory: what Datasets would keep of the file on this node is not needed again.
    with tempfile.TemporaryDirectory() as cache:
        local = datasets.load_dataset(
            "json",
            data_files=arguments.data,
            split="train",
            cache_dir=cache,
            keep_in_memory=True,
        )
    # More passes than there are steps for: training ends by steps.
    passes = 1 + arguments.steps * BATCH * arguments.workers // len(local)
    rows = datasets.concatenate_datasets([local] * passes)
    dataset = ray.data.from_huggingface(rows).map_batches(
        encode,
        fn_kwargs={"model": arguments.model, "length": arguments.length},
        batch_size=len(local),
    )
    trainer = TorchTrainer(
        train,
        train_loop_config={
            "model": arguments.model,
            "steps": arguments.steps,
            "save_steps": arguments.save_steps,
        },
        datasets={"train": dataset},
        scaling_config=ScalingConfig(
            num_workers=arguments.workers,
            use_gpu=torch.cuda.is_available(),
            # A lost node takes one worker with it, not all.
            placement_strategy="SPREAD",
        ),
        run_config=RunConfig(
            name="finetune",
            storage_path=checkpoint_folder(),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=3),
        ),
    )
    result = trainer.fit()
    if result.checkpoint is None:
        raise SystemExit("nothing was saved: --save-steps is more than --steps")
    tidy(result)
    numbers = result.metrics or {}
    tell(
        {
            "steps": numbers["step"],
            "first_step": result.return_value,
            "loss": round(numbers["loss"], 4),
        },
        str(Path(result.checkpoint.path, RayTrainReportCallback.CHECKPOINT_NAME)),
    )


if __name__ == "__main__":
    main()
