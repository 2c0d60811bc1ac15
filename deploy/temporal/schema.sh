#!/bin/sh
# Creates Temporal's two databases, or brings their schema up to the version of this tool; may be run again at any time.
set -eu
SQL_PASSWORD="$(cat "${POSTGRES_PASSWORD_FILE:-/run/secrets/postgres-password}")"
export SQL_PASSWORD

schema() {
  temporal-sql-tool --plugin postgres12 --ep "${POSTGRES_SEEDS}" -p 5432 -u "${POSTGRES_USER}" --db "$@"
}

for name in temporal visibility; do
  case "${name}" in
    temporal) database=temporal ;;
    visibility) database=temporal_visibility ;;
  esac
  schema "${database}" create
  schema "${database}" setup-schema -v 0.0
  schema "${database}" update-schema --schema-name "postgresql/v12/${name}"
done
