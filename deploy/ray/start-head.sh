#!/usr/bin/env bash
# Starts a Ray head whose state lies in Redis, in the foreground: for systemd (Restart=always), or by hand.
# A head that dies and is started again under the same name goes on with the cluster's workers, actors and jobs.
#
#   RAY_REDIS_ADDRESS=10.0.0.5:6379 RAY_REDIS_PASSWORD_FILE=/etc/oneiros/redis ./start-head.sh --node-ip-address=10.0.0.4
set -euo pipefail

: "${RAY_REDIS_ADDRESS:?name the Redis server, as host:port}"
export RAY_REDIS_ADDRESS
# One Redis can hold several clusters; the name must stay the same from start to start.
export RAY_external_storage_namespace="${RAY_external_storage_namespace:-oneiros}"
# Workers wait this long for a new head before they give up.
export RAY_gcs_rpc_server_reconnect_timeout_s="${RAY_gcs_rpc_server_reconnect_timeout_s:-600}"
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"

# An agent that chooses its port by itself has 15 seconds to say which, or Ray gives the node up: too few for a host that
# is busy while a head comes back (ray-project/ray#65983).
agents=(--dashboard-agent-grpc-port=20366 --runtime-env-agent-port=20367 --metrics-export-port=20368)
words=(--head --block --port="${RAY_PORT:-6379}" --num-cpus=0 --dashboard-host="${RAY_DASHBOARD_HOST:-127.0.0.1}")
if [[ -n "${RAY_REDIS_PASSWORD_FILE:-}" ]]; then
    RAY_REDIS_PASSWORD="$(<"$RAY_REDIS_PASSWORD_FILE")"
    export RAY_REDIS_PASSWORD
    words+=(--redis-password="$RAY_REDIS_PASSWORD")
fi
exec ray start "${words[@]}" "${agents[@]}" "$@"
