"""Ray Train with PyTorch: a checkpoint after each epoch, and on from the last one after a loss.

rankflow job submit --name moons --nodes 2 --working-dir examples/jobs -- python torch_train.py
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import ray.train
import torch
from outcome import checkpoint_folder, tell, tidy, use_scratch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_data_loader, prepare_model
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy


def two_moons(points: int, seed: int) -> TensorDataset:
    """Points of two half circles that meet, (points, 2), and of which each is, (points, 1)."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(points, generator=generator) * torch.pi
    label = torch.randint(0, 2, (points,), generator=generator)
    x = torch.where(label == 0, torch.cos(angle), 1 - torch.cos(angle))
    y = torch.where(label == 0, torch.sin(angle), 0.5 - torch.sin(angle))
    noise = torch.randn(points, 2, generator=generator) * 0.1
    return TensorDataset(torch.stack([x, y], dim=1) + noise, label.float().unsqueeze(1))


def train(config: dict) -> None:
    """Runs on every worker."""
    use_scratch()
    context = ray.train.get_context()
    rank = context.get_world_rank()
    torch.manual_seed(rank)
    hidden = config["hidden"]
    # Wrapped for data parallelism, and moved to the worker's GPU where it has one.
    model = prepare_model(
        torch.nn.Sequential(torch.nn.Linear(2, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1))
    )
    # Without the wrapper, which a single worker does not have.
    weights = getattr(model, "module", model)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    # Each worker gets its share of the rows.
    loader = prepare_data_loader(DataLoader(two_moons(512, seed=1), batch_size=32, shuffle=True))
    validation = two_moons(256, seed=2)
    # They are synchronised between the workers when they are computed.
    accuracy = BinaryAccuracy().to(ray.train.torch.get_device())
    mean_loss = MeanMetric().to(ray.train.torch.get_device())
    criterion = torch.nn.BCEWithLogitsLoss()

    first = 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder, "model.pt"), weights_only=True)
            weights.load_state_dict(saved["model"])
            # Of the worker that had this rank: with more workers than before there is none.
            shard = Path(folder, f"optimizer-{rank}.pt")
            if shard.exists():
                optimizer.load_state_dict(torch.load(shard, weights_only=True))
            first = saved["epoch"] + 1
    if rank == 0:
        print(f"from epoch {first}", flush=True)

    for epoch in range(first, config["epochs"]):
        if context.get_world_size() > 1:
            loader.sampler.set_epoch(epoch)
        model.train()
        for points, labels in loader:
            loss = criterion(model(points), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean_loss.update(loss.detach())
        model.eval()
        with torch.no_grad():
            points, labels = validation.tensors
            device = ray.train.torch.get_device()
            accuracy.update(model(points.to(device)).sigmoid(), labels.to(device))
        metrics = {
            "epoch": epoch,
            "first_epoch": first,
            "loss": mean_loss.compute().item(),
            "accuracy": accuracy.compute().item(),
        }
        mean_loss.reset()
        accuracy.reset()
        time.sleep(config["pause"])
        with tempfile.TemporaryDirectory() as folder:
            # Every worker adds its own files: weights are the same on all, the rest may not be.
            torch.save(optimizer.state_dict(), Path(folder, f"optimizer-{rank}.pt"))
            if rank == 0:
                torch.save(
                    {"model": weights.state_dict(), "epoch": epoch}, Path(folder, "model.pt")
                )
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))
        if rank == 0:
            print(f"epoch {epoch} accuracy {metrics['accuracy']:.3f}", flush=True)


def environment(interface: str | None) -> dict[str, dict[str, str]]:
    """On which network interface the workers meet, where a host has several."""
    if interface is None:
        return {}
    return {"env_vars": {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument(
        "--pause", type=float, default=0, help="seconds that each epoch takes longer"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpu", action="store_true", help="NCCL on GPUs instead of gloo on CPUs")
    parser.add_argument("--accelerator-type", help="only on nodes that have these, such as H100")
    parser.add_argument("--interface", help="network interface, such as eth0")
    arguments = parser.parse_args()
    trainer = TorchTrainer(
        train,
        train_loop_config={
            "lr": 0.01,
            "hidden": 32,
            "epochs": arguments.epochs,
            "pause": arguments.pause,
        },
        scaling_config=ScalingConfig(
            num_workers=arguments.workers,
            use_gpu=arguments.gpu,
            resources_per_worker={"CPU": 1, **({"GPU": 1} if arguments.gpu else {})},
            accelerator_type=arguments.accelerator_type,
            # Over the nodes as far as they go: a lost node takes one worker with it, not all.
            placement_strategy="SPREAD",
        ),
        run_config=RunConfig(
            # The same name in the same place is the same run: it goes on from its last checkpoint.
            name="moons",
            storage_path=checkpoint_folder(),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2,
                checkpoint_score_attribute="accuracy",
                checkpoint_score_order="max",
            ),
            # Ray Train starts its workers again itself; what ends the script is Rankflow's.
            failure_config=FailureConfig(max_failures=3),
            worker_runtime_env=environment(arguments.interface),
        ),
    )
    result = trainer.fit()
    best = result.get_best_checkpoint("accuracy", "max")
    removed = tidy(result)
    if removed:
        print(f"removed {len(removed)} unfinished checkpoints", flush=True)
    numbers = result.metrics or {}
    tell(
        {
            "epochs": numbers["epoch"] + 1,
            "first_epoch": numbers["first_epoch"],
            "accuracy": round(numbers["accuracy"], 4),
            "attempt": int(os.environ.get("RANKFLOW_ATTEMPT", "1")),
            "kept": len(result.best_checkpoints or []),
        },
        None if best is None else best.path,
    )


if __name__ == "__main__":
    main()
