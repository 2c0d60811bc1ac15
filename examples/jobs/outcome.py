"""What the examples share: where a job keeps its checkpoints, and how it tells its result."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.train import Result


def checkpoint_folder() -> str:
    """The folder that all attempts of the job share; a temporary one without Rankflow."""
    return os.environ.get("RANKFLOW_CHECKPOINT_DIR") or tempfile.mkdtemp(prefix="jobs-example-")


def use_scratch() -> None:
    """Has a worker's temporary files in its working folder: they go with its node at the latest."""
    if "RANKFLOW_JOB_ID" in os.environ:
        tempfile.tempdir = str(Path.cwd())


def tidy(result: Result) -> list[str]:
    """Removes the checkpoint folders of a run that nobody counts, and returns their names.

    A worker that is killed while it reports has put files there already, and Ray Train knows only
    of reports that all workers have finished: it never removes these. Call it when the run is over.
    """
    known = {Path(checkpoint.path).name for checkpoint, _ in result.best_checkpoints or []}
    lost = [one for one in Path(result.path).glob("checkpoint_*") if one.is_dir()]
    lost = [one for one in lost if one.name not in known]
    for folder in lost:
        shutil.rmtree(folder)
    return sorted(folder.name for folder in lost)


def tell(metrics: dict[str, float | int | str], checkpoint: str | None) -> None:
    """Leaves numbers and the path of the best checkpoint for the job's result."""
    result: dict[str, object] = {"metrics": metrics}
    if checkpoint is not None:
        result["checkpoint"] = checkpoint
    print(f"result {json.dumps(result)}", flush=True)
    file = os.environ.get("RANKFLOW_RESULT_FILE")
    if file is not None:
        Path(file).write_text(json.dumps(result))
