r"""A Bayesian search (Optuna's TPE) with Ray Tune over a Ray Train trainer; goes on after a loss.

rankflow job submit --name search --nodes 2 --num-cpus 1 --working-dir examples/jobs -- \
    python tune_search.py
"""

import argparse
import tempfile
from pathlib import Path

import ray.train
import ray.tune
import torch
from outcome import checkpoint_folder, tell
from ray.train.torch import TorchTrainer, prepare_data_loader, prepare_model
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from torch.utils.data import DataLoader
from torch_train import two_moons

NAME = "search"


def train(config: dict) -> None:
    """Runs on every worker of a trial."""
    torch.manual_seed(0)
    hidden = config["hidden"]
    model = prepare_model(
        torch.nn.Sequential(torch.nn.Linear(2, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1))
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
    loader = prepare_data_loader(DataLoader(two_moons(256, seed=1), batch_size=32))
    criterion = torch.nn.BCEWithLogitsLoss()
    for _ in range(config["epochs"]):
        for points, labels in loader:
            loss = criterion(model(points), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    points, labels = two_moons(256, seed=2).tensors
    with torch.no_grad():
        loss = criterion(model(points.to(ray.train.torch.get_device())).cpu(), labels).item()
    with tempfile.TemporaryDirectory() as folder:
        torch.save(getattr(model, "module", model).state_dict(), Path(folder, "model.pt"))
        ray.train.report({"loss": loss}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def trial(config: dict) -> None:
    """One trial: a trainer of its own, with its checkpoints beside those of the other trials."""
    name = ray.tune.get_context().get_trial_id()
    storage = Path(config["storage"], "trials")
    print(f"trial {name}", flush=True)
    TorchTrainer(
        train,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(max_failures=1),
        ),
    ).fit()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    folder = checkpoint_folder()
    path = str(Path(folder, NAME))
    # For the trial itself, which only waits: its trainer holds the CPUs of its workers.
    trainable = ray.tune.with_resources(trial, {"CPU": 0.5})
    if ray.tune.Tuner.can_restore(path):
        tuner = ray.tune.Tuner.restore(
            path, trainable, resume_unfinished=True, restart_errored=True
        )
        known = [one for one in tuner.get_results() if one.error is None and one.metrics]
        print(f"going on after {len(known)} trials", flush=True)
    else:
        print("a new search", flush=True)
        tuner = ray.tune.Tuner(
            trainable,
            param_space={
                "lr": ray.tune.loguniform(1e-3, 1.0),
                "hidden": ray.tune.choice([4, 16, 64]),
                "epochs": arguments.epochs,
                "storage": folder,
            },
            tune_config=ray.tune.TuneConfig(
                metric="loss",
                mode="min",
                num_samples=arguments.trials,
                # Each trial learns from those before it, so few run at once.
                search_alg=ConcurrencyLimiter(
                    OptunaSearch(seed=1), max_concurrent=arguments.at_once
                ),
            ),
            run_config=ray.tune.RunConfig(name=NAME, storage_path=folder),
        )
    results = tuner.fit()
    if results.errors:
        raise results.errors[0]
    best = results.get_best_result("loss", "min")
    numbers = best.metrics or {}
    tell(
        {
            "trials": len(results),
            "loss": round(numbers["loss"], 4),
            "lr": round(best.config["lr"], 5),
            "hidden": best.config["hidden"],
        },
        numbers["checkpoint_path"],
    )


if __name__ == "__main__":
    main()
