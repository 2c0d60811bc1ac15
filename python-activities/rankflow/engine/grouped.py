"""The scheduler of engines on NVIDIA GPUs, unless ``--engine-arg scheduler_cls`` names another."""

from typing import Any

from vllm.config import VllmConfig
from vllm.platforms import current_platform
from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from rankflow.engine.grouping import Grouping

NAME = "rankflow.engine.grouped.GroupedScheduler"


class GroupedScheduler(Grouping, AsyncScheduler):
    """vLLM's scheduler, as it is where steps are scheduled ahead; requests begin in groups."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # vLLM has another scheduler there: with this its stages would run ahead of their tokens.
        if self.pp_size > 1 and not self.scheduler_config.async_scheduling:
            raise ValueError(
                "GroupedScheduler needs async_scheduling when an engine has pipeline stages"
            )


def let_begin_in_groups(config: VllmConfig) -> bool:
    """Choose :class:`GroupedScheduler` where it helps; whether the engine has it then.

    That is where steps are replayed from CUDA graphs, and where vLLM would take the scheduler that
    it is made of. Requests for embeddings begin and end in the same step: nothing to group.
    """
    scheduler, model = config.scheduler_config, config.model_config
    usual = scheduler.scheduler_cls is None and scheduler.async_scheduling
    replayed = current_platform.is_cuda() and not model.enforce_eager
    if usual and replayed and model.runner_type == "generate":
        scheduler.scheduler_cls = NAME
    return scheduler.scheduler_cls == NAME
