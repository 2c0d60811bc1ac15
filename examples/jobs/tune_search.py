r"""A Bayesian search (Optuna's TPE) with Ray Tune over a Ray Train trainer; goes on after a loss.

rankflow job submit --name search --nodes 2 --num-cpus 1 --working-dir examples/jobs -- \
    python tune_search.py
"""

import argparse
from pathlib import Path

import ray.train
import ray.tune
from outcome import checkpoint_folder, tell, tidy, use_scratch
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from torch_train import train

NAME = "search"


def trial(config: dict) -> None:
    """One trial: a trainer of its own, with its checkpoints beside those of the other trials."""
    use_scratch()
    name = ray.tune.get_context().get_trial_id()
    storage = Path(config["storage"], "trials")
    print(f"trial {name}", flush=True)
    result = TorchTrainer(
        train,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            # A trial that was running when the search was lost goes on from its last epoch.
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            # Each epoch's metrics go on to Tune, with the path of its checkpoint.
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(max_failures=1),
        ),
    ).fit()
    tidy(result)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument(
        "--pause", type=float, default=0, help="seconds that each epoch takes longer"
    )
    arguments = parser.parse_args()
    folder = checkpoint_folder()
    path = str(Path(folder, NAME))
    # For the trial itself, which only waits: its trainer holds the CPUs of its workers.
    trainable = ray.tune.with_resources(trial, {"CPU": 0.5})
    # A search that was lost in its first seconds has left no state yet: it begins anew.
    begun = any(Path(path).glob("experiment_state-*.json"))
    if begun and ray.tune.Tuner.can_restore(path):
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
                "pause": arguments.pause,
                "storage": folder,
            },
            tune_config=ray.tune.TuneConfig(
                metric="accuracy",
                mode="max",
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
    best = results.get_best_result("accuracy", "max")
    numbers = best.metrics or {}
    tell(
        {
            "trials": len(results),
            "accuracy": round(numbers["accuracy"], 4),
            "lr": round(best.config["lr"], 5),
            "hidden": best.config["hidden"],
        },
        numbers["checkpoint_path"],
    )


if __name__ == "__main__":
    main()
