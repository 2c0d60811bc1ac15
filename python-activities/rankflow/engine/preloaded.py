"""What the fork server of :mod:`rankflow.engine.prefork` has ready for vLLM's processes."""

import importlib
import os

import setproctitle

from rankflow import garbage
from rankflow.engine.prefork import COMPUTE_NICENESS, fork_from_server

# It looks for its own command line beside the environment, which forks exchange.
setproctitle.getproctitle()

# What is imported stays in pages that the forks share.
with garbage.put_off():
    from vllm.platforms import current_platform

    fork_from_server()
    # None of it initialises CUDA (vLLM 0.26): the driver says so then, and computes in a fork.
    device = "cpu" if current_platform.is_cpu() else "gpu"
    for module in (
        "vllm.v1.engine.core",
        "vllm.v1.executor.multiproc_executor",
        f"vllm.v1.worker.{device}_worker",
        f"vllm.v1.worker.{device}_model_runner",
    ):
        importlib.import_module(module)

if device == "cpu":
    # They take all there is for as long as they compute, on the processors of the actor and, on one
    # host, of Temporal and the workers: those need little, but at once.
    os.nice(COMPUTE_NICENESS)
