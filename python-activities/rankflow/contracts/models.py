"""Generated from src/contracts by 'npm run contracts'; do not edit."""

from __future__ import annotations
from typing import Annotated, Any, Literal
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
)
from typing_extensions import TypeAliasType


class RankflowContracts(RootModel[Any]):
    root: Annotated[Any, Field(title="Rankflow contracts")]


class BatchHeartbeat(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    engine: str
    rows_done: Annotated[int, Field(alias="rowsDone", ge=0)]
    rows: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(alias="completionTokens", ge=0)]
    trouble: Annotated[
        str | None, Field(description="What the attempt waits for, such as the store")
    ] = None


class BatchLimits(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    max_rows: Annotated[int, Field(alias="maxRows", gt=0)] = 1024
    max_tokens: Annotated[
        int,
        Field(alias="maxTokens", description="Prompt plus maximum output tokens", gt=0),
    ] = 262144


class BatchRange(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    first: Annotated[int, Field(ge=0)]
    last: Annotated[int, Field(ge=0)]


class CanaryInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    spec_hash: Annotated[str, Field(alias="specHash")]


class CanaryResult(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    engine: str
    load_seconds: Annotated[float, Field(alias="loadSeconds", ge=0.0)]
    max_model_len: Annotated[int, Field(alias="maxModelLen", gt=0)]
    vllm_version: Annotated[str, Field(alias="vllmVersion")]
    batches: Annotated[
        int | None, Field(description="Batches that the engine works on", ge=0)
    ] = None
    metrics: Annotated[
        str | None, Field(description="host:port where the engine serves its metrics")
    ] = None


class CheckEngineArgumentsResult(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    max_model_len: Annotated[int, Field(alias="maxModelLen", gt=0)]
    architecture: str


class CheckStoreRoomInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    store: str
    run_id: Annotated[str, Field(alias="runId")]
    needed_bytes: Annotated[
        int | None,
        Field(
            alias="neededBytes",
            description="Free space that is waited for, when it is known",
            ge=0,
        ),
    ] = None


class ClusterAddress(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]
    address: Annotated[str, Field(description="GCS address host:port")]
    dashboard_url: Annotated[str, Field(alias="dashboardUrl")]
    token_file: Annotated[str | None, Field(alias="tokenFile")] = None


class Worker(RootModel[int]):
    root: Annotated[int, Field(ge=1, le=65535)]


class ClusterPorts(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    gcs: Annotated[
        int,
        Field(description="Head: what nodes and drivers connect to", ge=1, le=65535),
    ] = 6379
    dashboard: Annotated[
        int, Field(description="Head: dashboard, jobs and state", ge=1, le=65535)
    ] = 8265
    client: Annotated[int, Field(description="Head: Ray client", ge=1, le=65535)] = (
        10001
    )
    node_manager: Annotated[
        int | None,
        Field(
            alias="nodeManager",
            description="Each node; default any free port",
            ge=1,
            le=65535,
        ),
    ] = None
    object_manager: Annotated[
        int | None,
        Field(
            alias="objectManager",
            description="Each node; default any free port",
            ge=1,
            le=65535,
        ),
    ] = None
    dashboard_agent_grpc: Annotated[
        int | None,
        Field(
            alias="dashboardAgentGrpc",
            description="Each node: logs of jobs come from there to the head; default any free port",
            ge=1,
            le=65535,
        ),
    ] = None
    dashboard_agent_listen: Annotated[
        int | None,
        Field(
            alias="dashboardAgentListen",
            description="Each node; default any free port",
            ge=1,
            le=65535,
        ),
    ] = None
    runtime_env_agent: Annotated[
        int | None,
        Field(
            alias="runtimeEnvAgent",
            description="Each node; default any free port",
            ge=1,
            le=65535,
        ),
    ] = None
    metrics_export: Annotated[
        int | None,
        Field(
            alias="metricsExport",
            description="Each node: Ray's metrics for a Prometheus; default any free port",
            ge=1,
            le=65535,
        ),
    ] = None
    workers: Annotated[
        tuple[Worker, Worker] | None,
        Field(
            description="Each node: first and last port of its worker processes; default 10002 to 19999"
        ),
    ] = None


class DrainInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    spec_hash: Annotated[str, Field(alias="specHash")]
    deadline: Annotated[int, Field(description="Milliseconds since the epoch", ge=0)]


class DrainResult(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    engine: Annotated[
        str, Field(description="Fleet, slot and incarnation that was drained")
    ]
    waiting_rows: Annotated[
        int,
        Field(
            alias="waitingRows",
            description="Rows given back before a token of them was there",
            ge=0,
        ),
    ]
    cut_rows: Annotated[
        int,
        Field(
            alias="cutRows",
            description="Rows given back while they were being decoded",
            ge=0,
        ),
    ]
    seconds: Annotated[float, Field(ge=0.0)]


class ExecuteFleetPlanResult(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    started: list[int]
    stopped: list[int]
    restarted: list[int]


class ExistingProvider(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    provider: Literal["existing"]
    address: Annotated[
        str,
        Field(
            description="GCS address host:port",
            pattern="^(?:\\[[\\dA-Fa-f:.%]+\\]|[^\\s/:@]+):\\d{1,5}$",
        ),
    ]
    dashboard_url: Annotated[
        str,
        Field(
            alias="dashboardUrl",
            description="http://host:8265",
            pattern="^https?:\\/\\/(?:\\[[\\dA-Fa-f:.%]+\\]|[^\\s/:@?#]+)(?::\\d{1,5})?(?:\\/\\S*)?$",
        ),
    ]
    token_file: Annotated[
        str | None,
        Field(alias="tokenFile", description="Ray token file (RAY_AUTH_TOKEN_PATH)"),
    ] = None


class FinalizeRunInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    run_id: Annotated[str, Field(alias="runId")]
    store: str
    missing: Annotated[
        Literal["refuse", "batch_cancelled", "batch_expired"],
        Field(description="What a row without a commit becomes"),
    ] = "refuse"


class FinalizeRunResult(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    rows: Annotated[int, Field(ge=0)]
    succeeded: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)]
    prompt_tokens: Annotated[int, Field(alias="promptTokens", ge=0)]
    completion_tokens: Annotated[int, Field(alias="completionTokens", ge=0)]
    output_uri: Annotated[str, Field(alias="outputUri")]
    errors_uri: Annotated[str, Field(alias="errorsUri")]
    manifest_uri: Annotated[str, Field(alias="manifestUri")]


class FleetScaling(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    min_engines: Annotated[
        int,
        Field(
            alias="minEngines", description="Never fewer; 0 lets it go to none", ge=0
        ),
    ]
    max_engines: Annotated[
        int, Field(alias="maxEngines", description="Never more", gt=0)
    ]
    idle_seconds: Annotated[
        int,
        Field(
            alias="idleSeconds",
            description="For how long fewer engines must have sufficed before one is taken away",
            gt=0,
        ),
    ] = 120


class GenerateBatchInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    run_id: Annotated[str, Field(alias="runId")]
    store: str
    rank: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(ge=0)]
    spec_hash: Annotated[
        str,
        Field(
            alias="specHash",
            description="Model spec the run was planned for; an engine asserts it",
        ),
    ]
    alone: Annotated[
        bool | None,
        Field(
            description="Earlier attempts killed their engines: nothing else runs beside this one"
        ),
    ] = None


class Fleet(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    name: str
    engines: Annotated[int, Field(gt=0)]
    max_concurrent_batches: Annotated[
        int, Field(alias="maxConcurrentBatches", gt=0)
    ] = 2
    rows_per_engine: Annotated[
        int | None,
        Field(
            alias="rowsPerEngine",
            description="Rows one engine may have in work at once; sizes the windows of the ranks",
            gt=0,
        ),
    ] = None
    scaling: FleetScaling | None = None
    idle_timeout_seconds: Annotated[
        int | None, Field(alias="idleTimeoutSeconds", gt=0)
    ] = None


class InputProblem(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    line: Annotated[
        int,
        Field(description="1-based line (row for Parquet); 0 for the whole file", ge=0),
    ]
    custom_id: Annotated[str | None, Field(alias="customId")] = None
    code: Annotated[
        str, Field(description="Stable machine-readable code, e.g. invalid_json")
    ]
    message: str


class InputSpec(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    uri: Annotated[
        str,
        Field(
            description="file:// or s3:// address, or an absolute path", min_length=1
        ),
    ]
    format: Literal["auto", "openai", "jsonl", "csv", "parquet"] = "auto"
    prompt_column: Annotated[
        str | None,
        Field(
            alias="promptColumn",
            description="Column of a CSV, Parquet or simple JSONL input",
        ),
    ] = None
    template: Annotated[
        str | None, Field(description="Prompt text with {column} placeholders")
    ] = None
    limit: Annotated[
        int | None, Field(description="Only the first N requests", gt=0)
    ] = None


class LocalProvider(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    provider: Literal["local"]
    workers: Annotated[
        int, Field(description="Worker nodes; 0 puts engines on the head", ge=0)
    ] = 0
    cpus_per_node: Annotated[
        float | None,
        Field(
            alias="cpusPerNode",
            description="Logical CPUs Ray may place per node",
            gt=0.0,
        ),
    ] = None
    gpus_per_node: Annotated[float | None, Field(alias="gpusPerNode", ge=0.0)] = None
    gcs_storage: Annotated[
        Literal["memory", "rocksdb"] | None,
        Field(
            alias="gcsStorage",
            description="rocksdb (alpha in Ray): engines outlive a lost head; default memory",
        ),
    ] = None


class Mount(RootModel[str]):
    root: Annotated[str, Field(pattern="^\\/[^:\\n]+(?::\\/[^:\\n]+)?(?::ro)?$")]


class PassItem(RootModel[str]):
    root: Annotated[str, Field(pattern="^[A-Za-z_]\\w*$")]


class NodeEnvironment(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    python: Annotated[
        str | None,
        Field(
            description="Python that is there on each node; with an image: the one in it",
            min_length=1,
        ),
    ] = None
    python_version: Annotated[
        str | None,
        Field(
            alias="pythonVersion",
            description="For requirements, maybe with its patch version; default 3.11",
            pattern="^3\\.\\d+(?:\\.\\d+)?$",
        ),
    ] = None
    requirements: Annotated[
        str | None, Field(description="Text of a requirements file for uv")
    ] = None
    conda: Annotated[str | None, Field(description="Text of an environment.yml")] = None
    image: Annotated[
        str | None,
        Field(
            description="Container image; runs with --network host, as the user of ssh",
            min_length=1,
        ),
    ] = None
    mounts: Annotated[
        list[Mount] | None,
        Field(
            description="For an image: what of its host a container sees, as host[:container][:ro]"
        ),
    ] = None
    variables: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")], str] | None,
        Field(description="Environment of the nodes: no secrets"),
    ] = None
    pass_: Annotated[
        list[PassItem] | None,
        Field(
            alias="pass",
            description="Variables of the control worker that the nodes get, too, such as AWS_SECRET_ACCESS_KEY",
        ),
    ] = None


CustomAdditionalProperty = TypeAliasType(
    "CustomAdditionalProperty", Annotated[float, Field(ge=0.0)]
)


class NodeResources(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
        regex_engine="python-re",
    )
    num_cpus: Annotated[
        int | None, Field(description="Logical CPUs; default what the host has", ge=0)
    ] = None
    num_gpus: Annotated[
        int | None, Field(description="Default what the host has", ge=0)
    ] = None
    custom: Annotated[
        dict[
            Annotated[
                str,
                StringConstraints(
                    pattern=r"^(?!(?:CPU|GPU|memory|object_store_memory)$).+$"
                ),
            ],
            CustomAdditionalProperty,
        ]
        | None,
        Field(description="Custom resources of Ray"),
    ] = None


class ObservedEngine(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    slot: Annotated[int, Field(ge=0)]
    actor_state: Annotated[
        Literal[
            "DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD"
        ],
        Field(alias="actorState"),
    ]
    incarnation: Annotated[
        str | None, Field(description="<node id 8 chars>-<pid>, when ALIVE")
    ] = None
    node_id: Annotated[str | None, Field(alias="nodeId")] = None
    restarts: Annotated[int, Field(ge=0)]
    avoids: Annotated[
        list[str] | None,
        Field(
            description="Ids of nodes on which Ray may not place it; absent when Ray does not say"
        ),
    ] = None
    death_cause: Annotated[str | None, Field(alias="deathCause")] = None


class PlanSummary(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    run_id: Annotated[str, Field(alias="runId")]
    rows: Annotated[int, Field(ge=0)]
    invalid_rows: Annotated[
        int,
        Field(
            alias="invalidRows",
            description="Rows recorded as errors without generation",
            ge=0,
        ),
    ]
    prompt_tokens: Annotated[int, Field(alias="promptTokens", ge=0)]
    max_output_tokens: Annotated[int, Field(alias="maxOutputTokens", ge=0)]
    input_bytes: Annotated[int, Field(alias="inputBytes", ge=0)]
    input_sha256: Annotated[str, Field(alias="inputSha256")]
    batches: Annotated[list[int], Field(description="Number of batches of each rank")]
    rows_per_rank: Annotated[list[int], Field(alias="rowsPerRank")]
    finished: Annotated[bool, Field(description="Whether a manifest is already there")]


class PreemptionNotice(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    node_id: Annotated[
        str, Field(alias="nodeId", description="Ray node id, hex", min_length=1)
    ]
    source: Annotated[
        Literal["aws", "gcp", "azure", "file", "url", "ray"],
        Field(
            description="Who gave notice; ray: the node is drained in Ray, e.g. after SIGTERM"
        ),
    ]
    deadline: Annotated[
        int, Field(description="When the node goes, milliseconds since the epoch", ge=0)
    ]


class RankProgressInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    run_id: Annotated[str, Field(alias="runId")]
    store: str
    rank: Annotated[int, Field(ge=0)]


class RedoneWork(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    rows: Annotated[int, Field(ge=0)]
    tokens: Annotated[int, Field(description="Completion tokens of these rows", ge=0)]
    left_tokens: Annotated[
        int,
        Field(
            alias="leftTokens",
            description="Of the tokens: given back by engines that had to leave, as preempted ones have",
            ge=0,
        ),
    ]


class RowCounts(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    batches: Annotated[int, Field(ge=0)]
    rows: Annotated[int, Field(ge=0)]
    failed_rows: Annotated[int, Field(alias="failedRows", ge=0)]
    prompt_tokens: Annotated[int, Field(alias="promptTokens", ge=0)]
    completion_tokens: Annotated[int, Field(alias="completionTokens", ge=0)]


class RunPriority(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    key: Annotated[int, Field(description="1 goes before 2, and so on", ge=1, le=5)] = 3
    weight: Annotated[
        float,
        Field(
            description="Share of the engines among runs of the same key",
            ge=0.001,
            le=1000.0,
        ),
    ] = 1


class RunState(
    RootModel[
        Literal[
            "validating",
            "in_progress",
            "finalizing",
            "completed",
            "failed",
            "expired",
            "cancelling",
            "cancelled",
            "paused",
        ]
    ]
):
    root: Annotated[
        Literal[
            "validating",
            "in_progress",
            "finalizing",
            "completed",
            "failed",
            "expired",
            "cancelling",
            "cancelled",
            "paused",
        ],
        Field(title="RunState"),
    ]


class SecretRef(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    env: Annotated[
        str | None,
        Field(description="Environment variable on the engine node", min_length=1),
    ] = None
    file: Annotated[
        str | None,
        Field(description="File (mode 0600) on the engine node", min_length=1),
    ] = None


class JumpItem(RootModel[str]):
    root: Annotated[
        str,
        Field(
            pattern="^(?:[\\w.-]+@)?(?:\\[[\\da-fA-F:]+\\]|[A-Za-z0-9_][\\w.-]*)(?::\\d+)?$"
        ),
    ]


class SshLogin(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    user: Annotated[str | None, Field(pattern="^[A-Za-z_][\\w.-]*$")] = None
    port: Annotated[
        int | None,
        Field(
            description="Default 22, or what the ssh configuration says", ge=1, le=65535
        ),
    ] = None
    identity_file: Annotated[
        str | None,
        Field(
            alias="identityFile",
            description="Private key on this machine",
            min_length=1,
        ),
    ] = None
    known_hosts: Annotated[
        str | None,
        Field(
            alias="knownHosts",
            description="Known-hosts file on this machine",
            min_length=1,
        ),
    ] = None
    jump: Annotated[
        list[JumpItem] | None,
        Field(description="Hosts to go through, first the one nearest to this machine"),
    ] = None
    config: Annotated[
        str | None,
        Field(description="ssh configuration instead of ~/.ssh/config", min_length=1),
    ] = None


LabelsAdditionalProperty = TypeAliasType(
    "LabelsAdditionalProperty",
    Annotated[str, Field(pattern="^[A-Za-z0-9](?:[\\w.-]{0,61}[A-Za-z0-9])?$")],
)


class SshNode(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    name: Annotated[str, Field(pattern="^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$")]
    host: Annotated[
        str,
        Field(
            description="Address, host name or ssh alias",
            max_length=253,
            pattern="^[A-Za-z0-9_][A-Za-z0-9_.:%-]*$",
        ),
    ]
    address: Annotated[
        str | None,
        Field(
            description="Address that the other nodes reach it at; default the one that ssh came to",
            min_length=1,
        ),
    ] = None
    ssh: SshLogin | None = None
    labels: (
        dict[
            Annotated[
                str,
                StringConstraints(
                    pattern=r"^(?:[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?\/)?[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?$"
                ),
            ],
            LabelsAdditionalProperty,
        ]
        | None
    ) = None
    resources: NodeResources | None = None


class SetupItem(RootModel[list[str]]):
    root: Annotated[list[str], Field(min_length=1)]


class SshProvider(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    provider: Literal["ssh"]
    head: SshNode
    workers: Annotated[
        list[SshNode],
        Field(
            description="Worker nodes in order of preference; those beyond `count` are spares"
        ),
    ]
    count: Annotated[int, Field(description="How many of the workers are wanted", ge=0)]
    ssh: SshLogin
    parallelism: Annotated[
        int, Field(description="Hosts that are worked on at once", ge=1, le=256)
    ] = 16
    ports: ClusterPorts
    environment: NodeEnvironment
    setup: Annotated[
        list[SetupItem],
        Field(
            description="Commands that run on a node before it starts, as argument arrays"
        ),
    ]
    step_timeout_seconds: Annotated[
        int,
        Field(
            alias="stepTimeoutSeconds",
            description="For each set-up command",
            ge=1,
            le=7200,
        ),
    ] = 900
    directory: Annotated[
        str,
        Field(
            description="Folder on the nodes for what a node needs while it runs",
            pattern="^\\/[\\w./@+-]*$",
        ),
    ] = "/tmp"
    token_auth: Annotated[bool, Field(alias="tokenAuth")] = True
    gcs_storage: Annotated[Literal["memory", "rocksdb"], Field(alias="gcsStorage")] = (
        "memory"
    )
    idle_minutes: Annotated[
        float | None,
        Field(
            alias="idleMinutes",
            description="The cluster goes when it has had no engine, job or user for so long",
            gt=0.0,
        ),
    ] = None


class StoreRoom(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    free_bytes: Annotated[
        int | None,
        Field(
            alias="freeBytes",
            description="Absent where nobody can tell: a bucket",
            ge=0,
        ),
    ] = None


class StoreSharedBy(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    nodes: Annotated[list[str], Field(description="Names of the nodes that answered")]


class CheckStoreSharedInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    store: str
    cluster: ClusterAddress
    cpus: Annotated[
        float | None,
        Field(
            description="Nodes with fewer CPUs do not use the store; absent: all do",
            ge=0.0,
        ),
    ] = None
    gpus: Annotated[float | None, Field(description="The same for GPUs", ge=0.0)] = None


class ClusterSpec(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]
    nodes: LocalProvider | ExistingProvider | SshProvider


class GenerateBatchResult(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    rank: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(ge=0)]
    rows: Annotated[int, Field(ge=0)]
    failed_rows: Annotated[int, Field(alias="failedRows", ge=0)]
    prompt_tokens: Annotated[int, Field(alias="promptTokens", ge=0)]
    completion_tokens: Annotated[int, Field(alias="completionTokens", ge=0)]
    salvaged_rows: Annotated[
        int,
        Field(
            alias="salvagedRows",
            description="Rows taken over from earlier attempts",
            ge=0,
        ),
    ]
    generated_rows: Annotated[int, Field(alias="generatedRows", ge=0)]
    already_committed: Annotated[bool, Field(alias="alreadyCommitted")]
    engine: Annotated[
        str, Field(description="Fleet, slot and incarnation that answered")
    ]
    seconds: Annotated[float, Field(ge=0.0)]
    attempt: Annotated[
        int | None,
        Field(description="Attempt of the activity that answered, from 1", gt=0),
    ] = None
    redone: Annotated[
        RedoneWork | None,
        Field(description="Over all attempts; absent when there was nothing"),
    ] = None


class ModelSpec(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    model: Annotated[
        str, Field(description="Local folder or hub name of the model", min_length=1)
    ]
    revision: Annotated[
        str | None,
        Field(description="Hub revision: branch, tag or commit", min_length=1),
    ] = None
    tokenizer: Annotated[str | None, Field(min_length=1)] = None
    endpoint: Annotated[
        str | None, Field(description="Hub endpoint (HF_ENDPOINT) to load from")
    ] = None
    credentials: Annotated[
        SecretRef | None, Field(description="Reference to the hub token")
    ] = None
    cache_dir: Annotated[
        str | None,
        Field(
            alias="cacheDir",
            description="Folder on the engine node that keeps downloads",
        ),
    ] = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: Annotated[
        int | None,
        Field(alias="maxModelLen", description="Context length in tokens", gt=0),
    ] = None
    tensor_parallel_size: Annotated[int, Field(alias="tensorParallelSize", gt=0)] = 1
    pipeline_parallel_size: Annotated[
        int, Field(alias="pipelineParallelSize", gt=0)
    ] = 1
    max_num_seqs: Annotated[
        int | None,
        Field(
            alias="maxNumSeqs", description="Concurrent sequences of one engine", gt=0
        ),
    ] = None
    cpus_per_engine: Annotated[float, Field(alias="cpusPerEngine", gt=0.0)] = 1
    gpus_per_engine: Annotated[
        float,
        Field(alias="gpusPerEngine", description="Fractions share one GPU", ge=0.0),
    ] = 0
    tool_call_parser: Annotated[str | None, Field(alias="toolCallParser")] = None
    reasoning_parser: Annotated[str | None, Field(alias="reasoningParser")] = None
    engine_args: Annotated[
        dict[str, Any],
        Field(alias="engineArgs", description="Extra vLLM engine arguments"),
    ] = {}
    backend: Literal["vllm", "simulated"] = "vllm"


class RankProgress(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    committed: RowCounts
    pending: Annotated[
        list[BatchRange], Field(description="Batch numbers without a commit, ascending")
    ]


class RunSpec(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    run_id: Annotated[
        str, Field(alias="runId", pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    ]
    input: InputSpec
    store: Annotated[
        str,
        Field(
            description="Root of the store: absolute path or s3://bucket/prefix",
            min_length=1,
        ),
    ]
    model: ModelSpec
    sampling: Annotated[
        dict[str, Any], Field(description="Defaults for every request body")
    ] = {}
    ranks: Annotated[int, Field(gt=0)] = 1
    on_invalid: Annotated[Literal["refuse", "record"], Field(alias="onInvalid")] = (
        "refuse"
    )
    batch: BatchLimits


class CheckEngineArgumentsInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    model: ModelSpec


class FleetSpec(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]
    cluster: ClusterAddress
    model: ModelSpec
    spec_hash: Annotated[
        str,
        Field(
            alias="specHash", description="Hex sha256 of the model spec (see specHash)"
        ),
    ]
    engines: Annotated[int, Field(description="Desired number of engines", ge=0)]
    max_concurrent_batches: Annotated[
        int,
        Field(
            alias="maxConcurrentBatches",
            description="Batches one engine admits at once, so that decoding never runs dry",
            gt=0,
        ),
    ] = 2
    scaling: Annotated[
        FleetScaling | None,
        Field(description="Absent: the number of engines is what was asked for"),
    ] = None
    idle_timeout_seconds: Annotated[
        int | None,
        Field(
            alias="idleTimeoutSeconds",
            description="Stops the fleet when nobody has used it for so long; absent: it stays",
            gt=0,
        ),
    ] = None


class InferenceInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    run: RunSpec
    spec_hash: Annotated[str, Field(alias="specHash")]
    cluster: ClusterSpec
    fleet: Fleet
    affinity: Literal["pull", "rank"] = "pull"
    deadline: Annotated[
        AwareDatetime | None,
        Field(
            description="When the run expires: what is done is kept, the rest become batch_expired lines"
        ),
    ] = None
    priority: RunPriority | None = None
    keep: Annotated[
        bool, Field(description="Leave the cluster and fleet this brought up running")
    ] = False


class PlanRunInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    spec: RunSpec


class ExecuteFleetPlanInput(BaseModel):
    model_config = ConfigDict(
        populate_by_name=True,
    )
    fleet: FleetSpec
    start: Annotated[list[int], Field(description="Slots to create (get_if_exists)")]
    indexes: Annotated[
        list[int] | None,
        Field(
            description="Index of each slot of `start`: the ranks it serves; by default the slot itself"
        ),
    ] = None
    avoid: Annotated[
        list[str] | None,
        Field(
            description="Ids of nodes on which none of `start` may be placed: they are cordoned"
        ),
    ] = None
    stop: Annotated[list[int], Field(description="Slots to kill for good (no_restart)")]
    drained: Annotated[
        list[int] | None,
        Field(
            description="Those of `stop` that have given back their work, or are lost: killed at once"
        ),
    ] = None
    restart: Annotated[
        list[int], Field(description="Hung slots to kill so that Ray restarts them")
    ]
