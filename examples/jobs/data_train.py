"""Ray Data feeds Ray Train: a table is read and scaled while it is trained on, in shards.

rankflow job submit --name houses --nodes 2 --working-dir examples/jobs -- python data_train.py
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import ray.data
import ray.train
import torch
from outcome import checkpoint_folder, tell, tidy, use_scratch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

COLUMNS = ("rooms", "area", "age", "distance")


def scale(
    batch: dict[str, np.ndarray], means: list[float], deviations: list[float]
) -> dict[str, np.ndarray]:
    """Columns as one array of features, (rows, columns), and prices in hundreds, (rows, 1)."""
    features = np.stack([batch[name] for name in COLUMNS], axis=1)
    return {
        "features": ((features - means) / deviations).astype(np.float32),
        "price": (batch["price"] / 100).astype(np.float32).reshape(-1, 1),
    }


def train(config: dict) -> None:
    """Runs on every worker."""
    use_scratch()
    model = prepare_model(torch.nn.Linear(len(COLUMNS), 1))
    weights = getattr(model, "module", model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    shard = ray.train.get_dataset_shard("train")
    first = 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder, "model.pt"), weights_only=True)
            weights.load_state_dict(saved["model"])
            first = saved["epoch"] + 1
    for epoch in range(first, config["epochs"]):
        losses, rows = [], 0
        for batch in shard.iter_torch_batches(batch_size=32):
            loss = torch.nn.functional.mse_loss(model(batch["features"]), batch["price"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            rows += len(batch["price"])
        metrics = {"epoch": epoch, "loss": float(np.mean(losses)), "rows_of_worker_0": rows}
        with tempfile.TemporaryDirectory() as folder:
            saves = ray.train.get_context().get_world_rank() == 0
            if saves:
                torch.save(
                    {"model": weights.state_dict(), "epoch": epoch}, Path(folder, "model.pt")
                )
            ray.train.report(
                metrics, checkpoint=Checkpoint.from_directory(folder) if saves else None
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data/houses.csv")
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()
    table = ray.data.read_csv(arguments.data)
    statistics = {
        "means": [table.mean(name) for name in COLUMNS],
        "deviations": [table.std(name) for name in COLUMNS],
    }
    trainer = TorchTrainer(
        train,
        train_loop_config={"epochs": arguments.epochs},
        # It is computed while it is read, block by block: no worker holds the whole table.
        datasets={"train": table.map_batches(scale, fn_kwargs=statistics)},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            name="houses",
            storage_path=checkpoint_folder(),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=3),
        ),
    )
    result = trainer.fit()
    tidy(result)
    numbers = result.metrics or {}
    tell(
        {name: round(numbers[name], 4) for name in ("epoch", "loss", "rows_of_worker_0")},
        result.checkpoint.path if result.checkpoint else None,
    )


if __name__ == "__main__":
    main()
