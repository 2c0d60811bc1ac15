"""Boosted trees on a table: XGBoost on two workers, each with its part of the rows.

rankflow job submit --name trees --nodes 2 --working-dir examples/jobs -- python xgboost_train.py
"""

import argparse

import ray.data
import ray.train
import xgboost
from outcome import checkpoint_folder, tell, tidy, use_scratch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.xgboost import RayTrainReportCallback, XGBoostTrainer

SCORE = "validation-rmse"


def matrix(name: str) -> xgboost.DMatrix:
    """This worker's rows of a data set."""
    frame = ray.train.get_dataset_shard(name).materialize().to_pandas()
    return xgboost.DMatrix(frame.drop(columns="price"), label=frame["price"])


def train(config: dict) -> None:
    """Runs on every worker; Ray Train has them meet."""
    use_scratch()
    checkpoint = ray.train.get_checkpoint()
    before = None if checkpoint is None else RayTrainReportCallback.get_model(checkpoint)
    done = 0 if before is None else before.num_boosted_rounds()
    xgboost.train(
        {"objective": "reg:squarederror", "tree_method": "hist", "eta": 0.2, "max_depth": 4},
        matrix("train"),
        num_boost_round=config["rounds"] - done,
        evals=[(matrix("validation"), "validation")],
        xgb_model=before,
        verbose_eval=False,
        callbacks=[RayTrainReportCallback(frequency=10)],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data/houses.csv")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    rows, validation = ray.data.read_csv(arguments.data).train_test_split(
        0.25, shuffle=True, seed=1
    )
    trainer = XGBoostTrainer(
        train,
        train_loop_config={"rounds": arguments.rounds},
        datasets={"train": rows, "validation": validation},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            name="trees",
            storage_path=checkpoint_folder(),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute=SCORE, checkpoint_score_order="min"
            ),
            failure_config=FailureConfig(max_failures=3),
        ),
    )
    result = trainer.fit()
    tidy(result)
    best = result.get_best_checkpoint(SCORE, "min")
    if best is None:
        raise SystemExit("no checkpoint was reported")
    booster = RayTrainReportCallback.get_model(result.checkpoint)
    rmse = min(numbers[SCORE] for _, numbers in result.best_checkpoints or [])
    tell({"rounds": booster.num_boosted_rounds(), "rmse": round(rmse, 3)}, best.path)


if __name__ == "__main__":
    main()
