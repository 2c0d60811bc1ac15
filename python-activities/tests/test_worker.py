"""What the worker raises reaches the workflow as an error of the closed set."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from rankflow.contracts.models import PlanRunInput
from rankflow.worker import PROBLEMS_SHOWN, plan_run
from tests.rows.support import chat, jsonl, spec


async def failure_of(given: PlanRunInput) -> Failure:
    """The failure of a plan as it travels to the workflow."""
    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(plan_run, given)
    failure = Failure()
    converter = DataConverter.default
    converter.failure_converter.to_failure(raised.value, converter.payload_converter, failure)
    return failure


async def test_an_error_of_planning_travels_with_its_type(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    failure = await failure_of(PlanRunInput(spec=spec(tmp_path, jsonl([chat("a")]))))
    assert failure.application_failure_info.type == "StoreUnavailable", failure


async def test_of_many_problems_the_first_travel_with_the_number_of_all(tmp_path: Path) -> None:
    count = PROBLEMS_SHOWN + 50
    failure = await failure_of(PlanRunInput(spec=spec(tmp_path, b"not json\n" * count)))
    info = failure.application_failure_info
    (details,) = DataConverter.default.payload_converter.from_payloads(info.details.payloads)
    assert info.type == "InvalidInput"
    assert len(details["problems"]) == PROBLEMS_SHOWN
    assert details["total"] == count
