"""Which sources a node is watched through, from the node's environment.

======================================  ==========================================================
``RANKFLOW_PREEMPTION``                 ``auto`` (each cloud that answers one question at the
                                        start), ``off``, or clouds by name: ``aws,gcp,azure``.
                                        Default: ``off`` on the loopback, else ``auto``
``RANKFLOW_PREEMPTION_FILE``            a file whose presence is the notice
``RANKFLOW_PREEMPTION_URL``             an address that answers 200 when there is notice
``AWS_EC2_METADATA_SERVICE_ENDPOINT``   address of the AWS service, as in AWS's own SDKs
``GCE_METADATA_HOST``                   host[:port] of the GCP service, as in Google's libraries
``RANKFLOW_AZURE_METADATA_ENDPOINT``    address of the Azure service
======================================  ==========================================================

A node whose address is a loopback one is no machine of a cloud's, whatever the machine is that
carries it, so there is nothing to ask. Ray's own list of drained nodes is always watched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from rankflow.preemption.sources import (
    LINK_LOCAL,
    Aws,
    Azure,
    CloudSource,
    File,
    Gcp,
    Source,
    Url,
)

log = logging.getLogger(__name__)

VARIABLE = "RANKFLOW_PREEMPTION"
FILE_VARIABLE = "RANKFLOW_PREEMPTION_FILE"
URL_VARIABLE = "RANKFLOW_PREEMPTION_URL"

Clouds = dict[str, Callable[[], CloudSource]]


def _clouds(environment: Mapping[str, str]) -> Clouds:
    aws = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or LINK_LOCAL
    host = environment.get("GCE_METADATA_HOST")
    gcp = f"http://{host}" if host else LINK_LOCAL
    azure = environment.get("RANKFLOW_AZURE_METADATA_ENDPOINT") or LINK_LOCAL
    return {"aws": lambda: Aws(aws), "gcp": lambda: Gcp(gcp), "azure": lambda: Azure(azure)}


def _answering(clouds: Clouds) -> list[Source]:
    """Ask all at once, as each may take its second."""
    candidates = [make() for make in clouds.values()]
    with ThreadPoolExecutor(len(candidates)) as pool:
        found = list(pool.map(_answers, candidates))
    return [cloud for cloud, here in zip(candidates, found, strict=True) if here]


def _answers(cloud: CloudSource) -> bool:
    return cloud.answers()


def _named(clouds: Clouds, choice: str) -> list[Source]:
    names = [name.strip() for name in choice.split(",")]
    for name in names:
        if name not in clouds:
            # The others still count: a node that is watched less is better than one that is not.
            log.error("%s names %r, which is not one of %s", VARIABLE, name, ", ".join(clouds))
    return [clouds[name]() for name in names if name in clouds]


def sources_of(environment: Mapping[str, str], address: str) -> list[Source]:
    """The sources of a node with this IP address; blocks for a second or so with ``auto``."""
    choice = environment.get(VARIABLE, "").strip().lower()
    if choice == "":
        choice = "off" if address.startswith("127.") or address == "::1" else "auto"
    clouds = _clouds(environment)
    if choice == "off":
        found: list[Source] = []
    else:
        found = _answering(clouds) if choice == "auto" else _named(clouds, choice)
    if path := environment.get(FILE_VARIABLE):
        found.append(File(path))
    if url := environment.get(URL_VARIABLE):
        found.append(Url(url))
    return found
