"""What the fork server of :mod:`rankflow.engine.prefork` has ready for vLLM's processes."""

import gc
import importlib

import setproctitle

from rankflow.engine.prefork import fork_from_server

# It looks for its own command line beside the environment, which forks exchange.
setproctitle.getproctitle()

fork_from_server()
for module in (
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
):
    importlib.import_module(module)

# The pages of what is imported stay shared with the forks.
gc.freeze()
