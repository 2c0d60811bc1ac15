#!/usr/bin/env bash
# The Python worker beside a Ray node of its own. A driver of Ray, which places engines, connects only through a node of
# its own machine, and a container is one. Both end when either does: a node ends after it has lost its head, and
# the container is then started again and joins the next one.
#
# RAY_HEAD_ADDRESS: HOST:PORT of the cluster's head
set -uo pipefail

# A node without room for engines.
ray start --address="${RAY_HEAD_ADDRESS:?HOST:PORT of the head}" --block \
  --num-cpus=0 --num-gpus=0 --object-store-memory=104857600 &
node=$!
python -m rankflow.worker &
worker=$!

asked=
trap 'asked=yes; kill -TERM "${worker}" 2>/dev/null' TERM INT

wait -n "${node}" "${worker}"
status=$?
# Activities in work may need the node, so the worker goes first.
kill -TERM "${worker}" 2>/dev/null
while kill -0 "${worker}" 2>/dev/null; do wait "${worker}"; done
kill -TERM "${node}" 2>/dev/null
while kill -0 "${node}" 2>/dev/null; do wait "${node}"; done

if [ -n "${asked}" ]; then exit 0; fi
echo "the Ray node or the Python worker ended by itself (${status})" >&2
exit 1
