#!/bin/sh
# Makes the namespace and Rankflow's search attributes; may be run again at any time. TEMPORAL_ADDRESS and
# TEMPORAL_NAMESPACE say where, RETENTION how long workflows that ended are kept.
set -eu

# The port is open before all parts of the server answer.
tries=0
until temporal operator cluster health >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "${tries}" -ge 30 ]; then
    echo "Temporal does not answer at ${TEMPORAL_ADDRESS}" >&2
    exit 1
  fi
  sleep 2
done

temporal operator namespace describe --namespace "${TEMPORAL_NAMESPACE}" >/dev/null 2>&1 ||
  temporal operator namespace create --namespace "${TEMPORAL_NAMESPACE}" --retention "${RETENTION}"

# Parts of the server hear of a new namespace some seconds later.
tries=0
until present="$(temporal operator search-attribute list --namespace "${TEMPORAL_NAMESPACE}" 2>/dev/null)"; do
  tries=$((tries + 1))
  if [ "${tries}" -ge 30 ]; then
    echo "the namespace ${TEMPORAL_NAMESPACE} does not come up" >&2
    exit 1
  fi
  sleep 2
done

attribute() {
  case "${present}" in
    *"$2"*) ;;
    *) temporal operator search-attribute create --namespace "${TEMPORAL_NAMESPACE}" --type "$1" --name "$2" ;;
  esac
}
for name in Model Fleet Cluster State Schedule; do attribute Keyword "Rankflow${name}"; done
for name in Rows FailedRows; do attribute Int "Rankflow${name}"; done
