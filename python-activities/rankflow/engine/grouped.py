"""``--engine-arg scheduler_cls=rankflow.engine.grouped.GroupedScheduler``."""

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from rankflow.engine.grouping import Grouping


class GroupedScheduler(Grouping, AsyncScheduler):
    """vLLM's scheduler, as it is where steps are scheduled ahead; requests begin in groups."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # vLLM has another scheduler there: with this its stages would run ahead of their tokens.
        if self.pp_size > 1 and not self.scheduler_config.async_scheduling:
            raise ValueError(
                "GroupedScheduler needs async_scheduling when an engine has pipeline stages"
            )
