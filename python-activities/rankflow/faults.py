"""Faults that tests and the fault campaign switch on; without ``RANKFLOW_FAULTS`` there are none.

A guarantee is proven only when its check fails without it, so what guards rows can be switched off
here and nowhere else. The variable holds JSON with the fields of :class:`Faults`.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

VARIABLE = "RANKFLOW_FAULTS"


class Faults(BaseModel):
    """What is broken on purpose in this process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fence: bool = Field(
        default=True,
        description="False: a late commit replaces an earlier one, and nothing gives way before",
    )
    salvage: bool = Field(default=True, description="False: a retry generates every row again")
    poison: str | None = Field(default=None, description="Text of a prompt that kills its engine")
    poison_hangs: bool = Field(default=False, description="True: it hangs its engine instead")

    def is_poison(self, body: dict[str, Any]) -> bool:
        """Whether a request body holds the poison."""
        return self.poison is not None and self.poison in json.dumps(body, ensure_ascii=False)


@cache
def faults() -> Faults:
    """The faults of this process, read once."""
    return Faults.model_validate_json(os.environ.get(VARIABLE, "{}"))


def inherited() -> dict[str, str]:
    """The variable for a process that Ray starts elsewhere; empty when there are no faults."""
    value = os.environ.get(VARIABLE)
    return {} if value is None else {VARIABLE: value}
