#!/bin/sh
# deploy/init.sh cpu|gpu MODEL: what docker-compose.yml needs, once: random secrets in ./secrets, a folder for inputs,
# models and results in ./data, and .env. Nothing that is there is overwritten. MODEL is what the batch API serves: a
# folder as containers see it (/data/models/NAME), or a name on a hub.
set -eu
cd "$(dirname "$0")/.."

profile="${1:-}"
model="${2:-}"
case "${profile}" in
  cpu) engines='--engines 2 --cpus-per-engine 2' ;;
  gpu) engines='--engines 1 --gpus-per-engine 1' ;;
  *)
    echo 'usage: deploy/init.sh cpu|gpu MODEL' >&2
    exit 2
    ;;
esac
if [ -z "${model}" ]; then
  echo 'usage: deploy/init.sh cpu|gpu MODEL' >&2
  exit 2
fi

# Only their owner comes through the folder; the users inside the containers have to be able to read the files.
mkdir -p secrets data/models
chmod 700 secrets
for name in postgres-password ray-token grafana-password; do
  if [ ! -e "secrets/${name}" ]; then
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"secrets/${name}"
    chmod 444 "secrets/${name}"
  fi
done

if [ ! -e .env ]; then
  cat >.env <<ENVIRONMENT
COMPOSE_PROFILES=${profile}
RANKFLOW_MODEL=${model}
RANKFLOW_SERVE_FLAGS=${engines}
ENVIRONMENT
fi

if [ "$(stat -c %u data)" != 1000 ] && ! chown -R 1000:1000 data 2>/dev/null; then
  echo 'The containers write to ./data as user 1000: sudo chown -R 1000 data' >&2
fi
