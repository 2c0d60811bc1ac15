"""The ``canary`` activity: does this incarnation of an engine still answer?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from temporalio import activity

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import CanaryInput, CanaryResult
from rankflow.contracts.names import CANARY
from rankflow.engine.backend import BackendDead, BackendTrouble, ModelFacts
from rankflow.engine.batch import Served
from rankflow.engine.host import EngineHost
from rankflow.engine.loadfailure import load_failure
from rankflow.failures import activity_errors

BUSY_SECONDS = 10.0
"""A probe waits behind the requests that are queued: steps taken for this long are proof enough."""
HUNG_SECONDS = 60.0
"""Neither an answer nor a step for this long: hung. A step takes seconds at most, even on a CPU."""


class CanaryActivity:
    """Holds what the activity needs; register ``canary`` with a worker."""

    def __init__(
        self,
        host: EngineHost,
        served: Served,
        batches: Callable[[], int] = lambda: 0,
        metrics: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Nothing starts yet.

        Args:
            batches: how many the engine works on now.
            metrics: ``host:port`` where the engine serves its metrics, if it does.
        """
        self._host = host
        self._served = served
        self._batches = batches
        self._metrics = metrics
        self.load_failure_reported = asyncio.Event()

    @activity.defn(name=CANARY)
    async def canary(self, given: CanaryInput) -> CanaryResult:
        """Wait for the model to be loaded, heartbeating, then have it compute one token.

        Raises (as Temporal errors) ENGINE_LOAD_FAILED and MODEL_MISMATCH, which are final, or
        ENGINE_GONE.
        """
        with activity_errors():
            if given.spec_hash != self._served.spec_hash:
                raise RankflowError(
                    ErrorType.MODEL_MISMATCH,
                    f"the engine {self._served.name} serves {self._served.spec_hash[:12]}, "
                    f"not {given.spec_hash[:12]}",
                )
            facts = await self._loaded()
            await self._answers()
            return CanaryResult(
                engine=self._served.name,
                load_seconds=self._host.load_seconds,
                max_model_len=facts.max_model_len,
                vllm_version=facts.vllm_version,
                batches=self._batches(),
                metrics=self._metrics(),
            )

    async def _loaded(self) -> ModelFacts:
        try:
            return await self._host.wait_loaded(activity.heartbeat)
        except BaseException as error:
            if error is not self._host.load_error:
                raise
            self.load_failure_reported.set()
            # Not retryable, as this process ends. No cause: it may be the error itself.
            raise load_failure(error).as_application_error(retryable=False) from None

    async def _answers(self) -> None:
        started = last_step = time.monotonic()
        seen = first = self._host.progress
        probe = asyncio.create_task(self._host.probe(f"canary-{time.time_ns()}"))
        try:
            while not (await asyncio.wait({probe}, timeout=0.5))[0]:
                now = time.monotonic()
                activity.heartbeat()
                if self._host.progress != seen:
                    seen, last_step = self._host.progress, now
                if seen != first and now - started > BUSY_SECONDS:
                    return
                if now - last_step > HUNG_SECONDS:
                    raise RankflowError(
                        ErrorType.ENGINE_GONE,
                        f"the engine {self._served.name} made no step for {HUNG_SECONDS:.0f} s",
                    )
            await probe
        except (BackendDead, BackendTrouble) as error:
            raise RankflowError(ErrorType.ENGINE_GONE, str(error)) from error
        finally:
            probe.cancel()
