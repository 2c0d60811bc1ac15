"""What goes over the wire is what the TypeScript side's schemas accept."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from rankflow.connection import contract_converter, temporal_target
from rankflow.contracts.models import ClusterAddress, GenerateBatchResult, ModelSpec, ObservedEngine

data_converter = contract_converter()


def on_the_wire(value: Any) -> Any:
    """The JSON of one payload."""
    (payload,) = data_converter.payload_converter.to_payloads([value])
    assert payload.metadata["encoding"] == b"json/plain"
    return json.loads(payload.data)


def test_fields_are_camel_case_and_absent_ones_are_left_out() -> None:
    engine = ObservedEngine(slot=1, actor_state="ALIVE", restarts=0)
    assert on_the_wire(engine) == {"slot": 1, "actorState": "ALIVE", "restarts": 0}


def test_a_model_spec_keeps_nulls_that_are_data() -> None:
    spec = ModelSpec(model="m", engine_args={"seed": None, "a": {"b": None}})
    assert on_the_wire(spec)["engineArgs"] == {"seed": None, "a": {"b": None}}


def test_a_result_comes_back_as_it_went() -> None:
    (payload,) = data_converter.payload_converter.to_payloads(
        [ClusterAddress(name="c", address="a:1", dashboard_url="http://a")]
    )
    (back,) = data_converter.payload_converter.from_payloads([payload], [ClusterAddress])
    assert back.dashboard_url == "http://a"
    assert GenerateBatchResult.model_fields["already_committed"].alias == "alreadyCommitted"


def test_the_server_is_the_one_that_temporals_own_settings_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "server:7000")
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "batch")
    target = temporal_target()
    assert (target.address, target.namespace) == ("server:7000", "batch")


def test_settings_that_cannot_be_read_are_refused_without_what_is_in_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profiles = tmp_path / "temporal.toml"
    profiles.write_text('[profile.default]\naddress = "a:7233"\napi_key = eyJhb-canary-51c7\n')
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(profiles))
    with pytest.raises(RuntimeError, match="settings cannot be read") as caught:
        temporal_target()
    assert "canary" not in "".join(traceback.format_exception(caught.value))
