"""Starts, watches and ends the Ray node of one host; the control worker sends it over ssh.

It goes to ``python -`` on standard input with a last line that calls :func:`main` (so no argument,
and nothing in it, shows in a process list), and prints one line of JSON. Only the standard library
of whatever Python the host has: this is also what finds out that it is not the right one.

Everything of a node lies in one folder that only its user can read:
``token``, ``node.json`` (which process it is), ``ray.log``, ``package/`` and Ray's own ``r/``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

RECORD = "node.json"
LOG = "ray.log"
TOKEN = "token"
RAY_FOLDER = "r"
MARKER = "RANKFLOW_NODE"

DISK_LEAST = 1 << 30
"""Room for Ray's logs and spilled objects: with less a node does not begin well."""
GRACE_SECONDS = 15.0
"""Ray drains for 5 s (see the node's environment) and ends its processes; then they are killed."""
GONE_SECONDS = 10.0
TAIL_LINES = 20
TAIL_BYTES = 64 * 1024


class Refused(Exception):
    """The host cannot do what it is asked; the message says why."""


def boot_id() -> str:
    """Tells one run of the operating system from the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def identity_of(pid: int) -> str | None:
    """The process that has this pid now: a pid is given again. None: there is none, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else f"{boot_id()}:{fields[19]}"


def read_record(folder: Path) -> dict[str, Any] | None:
    """What was started here, whether or not it still runs."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def runs(record: dict[str, Any] | None) -> bool:
    """Whether that very process still runs."""
    return record is not None and identity_of(record["pid"]) == record["identity"]


def write_privately(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner can read it."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    new.replace(path)


def own_folder(folder: Path) -> None:
    """Make the node's folder. Raises Refused when somebody else may have made it."""
    for _ in range(100):
        try:
            _own(folder.parent, parents=True)
            _own(folder, parents=False)
        except FileNotFoundError:
            # Hosts that share a file system share the parent, and the last to leave removes it.
            time.sleep(0.01)
            continue
        return
    raise Refused(f"{folder} cannot be made: {folder.parent} is removed again and again")


def _own(path: Path, *, parents: bool) -> None:
    try:
        path.mkdir(mode=0o700, parents=parents)
    except FileNotFoundError:
        raise
    except FileExistsError:
        pass
    except OSError as error:
        raise Refused(f"{path} cannot be made: {error.strerror}") from error
    found = path.lstat()
    if path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Refused(f"{path} is not a private folder of this user: remove it")


def marked(marker: str) -> list[int]:
    """Pids of all processes below this node, whatever group or session they have moved to."""
    wanted = f"{MARKER}={marker}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in variables and identity_of(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found


def kill_marked(marker: str) -> None:
    """Kill what is left of a node. Raises Refused when something does not go."""
    deadline = time.monotonic() + GONE_SECONDS
    while pids := marked(marker):
        if time.monotonic() > deadline:
            raise Refused(f"processes do not end: {', '.join(map(str, pids))}")
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.05)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def address_of(given: dict[str, Any]) -> str:
    """Address for the other nodes: the one given, else the one that ssh came to."""
    if given.get("address"):
        return str(given["address"])
    connection = os.environ.get("SSH_CONNECTION", "").split()
    return connection[2] if len(connection) == 4 else "127.0.0.1"


def _can_bind(address: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((address, port))
        except OSError as error:
            return error
    return None


def _free_bytes(folder: Path) -> int:
    while True:
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            # Not there yet, or taken away by another look since it was asked for.
            folder = folder.parent


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python_problems(given: dict[str, Any]) -> list[str]:
    """What Ray cannot do without: its drivers and nodes have one Python and one Ray.

    Nothing without ``expected``: this Python is not the one that the node will have.
    """
    if given.get("image"):
        found = shutil.which("docker") or shutil.which("podman")
        return [] if found else ["neither docker nor podman is here: install one of them"]
    if "expected" not in given:
        return []
    expected, problems = given["expected"], []
    # As many parts as Ray compares.
    parts = (python := expected.get("python") or "").split(".")
    here = ".".join(map(str, sys.version_info[: len(parts)]))
    if python and python != here:
        problems.append(
            f"{sys.executable} is Python {here}, and Ray needs the {python} of the other nodes: "
            "name another one in environment.python, or have one made from requirements"
            + (f" with environment.pythonVersion {python}" if len(parts) > 2 else "")
        )
    ray, wanted = _version("ray"), expected.get("ray")
    if ray is None:
        problems.append(
            f"{sys.executable} has no Ray: install it there"
            + (f" (ray[default]=={wanted})" if wanted else "")
        )
    elif wanted and ray != wanted:
        problems.append(f"{sys.executable} has Ray {ray}, and the other nodes have {wanted}")
    return problems


def _port_problems(given: dict[str, Any], address: str) -> list[str]:
    error = _can_bind(address, 0)
    if error is not None:
        return [f"{address} is not an address of this host: set `address` of the node"]
    problems = [
        f"port {port} of {address} is taken: set another ports.{name}, or end what has it"
        for name, port in given.get("ports", {}).items()
        if (taken := _can_bind(address, port)) is not None and taken.errno == errno.EADDRINUSE
    ]
    # What is left of a node has its ports, and goes before the node starts again.
    left = problems and "marker" in given and marked(given["marker"])
    return [] if left else problems


def _mount_problems(mounts: list[str]) -> list[str]:
    """Docker makes what is not there, as root."""
    paths = [mount.split(":")[0] for mount in mounts]
    return [
        f"{path} is not here, and environment.mounts names it: make it, or mount it there"
        for path in paths
        if not Path(path).exists()
    ]


def check(given: dict[str, Any]) -> dict[str, Any]:
    """Everything that keeps a node from starting here, all at once.

    The node's folder is made, and stays only with ``make``: a look leaves nothing behind.
    """
    folder = Path(given["folder"])
    address = address_of(given)
    problems = _python_problems(given) + _mount_problems(given.get("mounts", []))
    there = folder.exists()
    try:
        own_folder(folder)
    except Refused as error:
        problems.append(str(error))
    if not there and not given.get("make"):
        with contextlib.suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()
    free = _free_bytes(folder)
    if free < DISK_LEAST:
        problems.append(f"{folder} has {free >> 20} MiB left, and a node needs {DISK_LEAST >> 20}")
    gpus = given.get("gpus") or 0
    present = sum(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia*"))
    if gpus > present:
        problems.append(f"{gpus} GPUs are asked for (num_gpus), and {present} are here")
    if not runs(read_record(folder)):
        problems.extend(_port_problems(given, address))
    return {"problems": problems, "address": address}


def _container(given: dict[str, Any], folder: Path, environment: dict[str, str]) -> list[str]:
    """The command before the node's own that runs it in a container, in the host's network.

    Variables go through a file: as arguments everybody could read them.
    """
    program = shutil.which("docker") or shutil.which("podman") or "docker"
    home = folder / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    # The image need not know this user, and libraries ask for its name and write into its home.
    user = {"HOME": str(home), "USER": os.environ.get("USER") or str(os.getuid())}
    variables = folder / "environment"
    text = "".join(f"{k}={v}\n" for k, v in {**user, **environment}.items())
    write_privately(variables, text)
    volumes = [f"{folder}:{folder}", *map(_volume, given.get("mounts", []))]
    return [
        program,
        *("run", "--rm", "--init", "--name", container_name(given["marker"])),
        *_as_this_user(program),
        *("--network", "host", "--ipc", "host", "--env-file", str(variables)),
        *(word for volume in volumes for word in ("--volume", volume)),
        *(("--gpus", "all") if given.get("gpus") != 0 and shutil.which("nvidia-smi") else ()),
        str(given["image"]),
    ]


def _volume(mount: str) -> str:
    """``host[:container][:ro]`` with the place in the container spelt out."""
    host, *rest = mount.split(":")
    place = [] if rest and rest[0] != "ro" else [host]
    return ":".join([host, *place, *rest])


def _as_this_user(program: str) -> list[str]:
    """Have the container read what is this user's, such as the token, and leave nothing else."""
    uid, gid = os.getuid(), os.getgid()
    user = ["--user", f"{uid}:{gid}"]
    if uid == 0:
        return user
    if Path(program).name == "podman":
        return ["--userns", "keep-id", *user]
    info = [program, "info", "--format", "{{json .SecurityOptions}}"]
    said = subprocess.run(info, capture_output=True, text=True, check=False).stdout
    # In the namespace of a Docker without root this user is root, and no other one is it.
    if "name=rootless" in said:
        return ["--user", "0:0"]
    return user + [word for group in os.getgroups() for word in ("--group-add", str(group))]


def container_name(marker: str) -> str:
    """Name of the container of a node."""
    return "rankflow-" + marker.replace("/", "-")


def start(given: dict[str, Any]) -> dict[str, Any]:
    """Start the node in a session of its own, so that it outlives ssh; one that runs is left alone.

    ``given``: ``folder``, ``marker``, ``arguments`` of ``ray start``, ``environment``,
    ``placement`` (kept in the record: ports and address), of a container ``image``, ``python`` and
    ``mounts``.
    """
    folder = Path(given["folder"])
    own_folder(folder)
    record = read_record(folder)
    if record is not None and runs(record):
        return record
    # What was killed between its start and its record, and what a lost node left.
    kill_marked(given["marker"])
    _prepare_state(given["environment"].get("RAY_gcs_storage_path"), new=record is None)
    ray_folder = folder / RAY_FOLDER
    shutil.rmtree(ray_folder, ignore_errors=True)
    ray_folder.mkdir(mode=0o700)
    (folder / "preempted").unlink(missing_ok=True)
    variables = {**given["environment"], MARKER: given["marker"]}
    command = ["-m", "ray.scripts.scripts", "start", *given["arguments"]]
    if given.get("image"):
        before = _container(given, folder, variables)
        command = [*before, given.get("python") or "python3", *command]
    else:
        command = [sys.executable, *command]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SSH_", "PYTHON"))}
    # Commands of jobs find this Python and its tools by name; a container has a PATH of its own.
    own = None if given.get("image") else str(Path(sys.executable).parent)
    folders = [own, variables.get("PATH"), inherited.get("PATH")]
    variables["PATH"] = os.pathsep.join(filter(None, folders))
    with (folder / LOG).open("wb") as log:
        child = subprocess.Popen(
            command,
            env={**inherited, **variables},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    identity = identity_of(child.pid)
    record = {
        "pid": child.pid,
        "identity": identity or "ended",
        "startedAtMs": int(time.time() * 1000),
        **given["placement"],
    }
    write_privately(folder / RECORD, json.dumps(record))
    return record


def _prepare_state(path: str | None, *, new: bool) -> None:
    """Make the folder of the GCS's state; without a record it is that of a cluster long gone."""
    if path is None:
        return
    if new:
        shutil.rmtree(path, ignore_errors=True)
    Path(path).mkdir(mode=0o700, exist_ok=True)


def tail(folder: Path, lines: int = TAIL_LINES) -> str:
    """The end of the node's log; empty when there is none."""
    try:
        with (folder / LOG).open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def status(given: dict[str, Any]) -> dict[str, Any]:
    """Whether the node runs, for how many seconds, and where a head is.

    With ``marker`` also whether processes of one that ended are left.
    """
    folder = Path(given["folder"])
    record = read_record(folder)
    running = runs(record)
    answer: dict[str, Any] = {"running": running, "ageSeconds": 0.0}
    if record is not None:
        answer["ageSeconds"] = max(0.0, time.time() - record["startedAtMs"] / 1000)
        known = ("startedAtMs", "address", "gcs", "dashboard")
        answer.update({name: record[name] for name in known if name in record})
    if not running:
        answer["tail"] = tail(folder)
        if "marker" in given:
            answer["left"] = bool(marked(given["marker"]))
    return answer


def end(given: dict[str, Any]) -> dict[str, Any]:
    """End the node with all its processes and remove its folder; ``keep`` names what stays."""
    folder = Path(given["folder"])
    record = read_record(folder)
    text = tail(folder, 200)
    if record is not None and runs(record):
        _signal(record["pid"], signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while runs(record) and time.monotonic() < deadline:
            time.sleep(0.1)
    if given.get("image"):
        program = shutil.which("docker") or shutil.which("podman")
        if program is not None:
            name = container_name(given["marker"])
            subprocess.run([program, "rm", "--force", name], capture_output=True, check=False)
    kill_marked(given["marker"])
    keep = set(given.get("keep", []))
    if keep and folder.is_dir():
        for path in folder.iterdir():
            if path.name not in keep:
                _remove(path)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
    return {"tail": text}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def logs(given: dict[str, Any]) -> dict[str, Any]:
    """The end of the node's log."""
    return {"tail": tail(Path(given["folder"]), int(given.get("lines", 200)))}


COMMANDS = {"check": check, "start": start, "status": status, "end": end, "logs": logs}


def main(command: str, given: dict[str, Any]) -> None:
    """Run one command; prints its answer, or ``{"refused": why}``."""
    try:
        answer = COMMANDS[command](given)
    except Refused as error:
        answer = {"refused": str(error)}
    except OSError as error:
        answer = {"refused": f"{error.strerror}: {error.filename or given['folder']}"}
    except Exception as error:
        # An exit code would say that nothing was done.
        answer = {"refused": f"{command} failed: {type(error).__name__}: {error}"}
    print(json.dumps(answer))
