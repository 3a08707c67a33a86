#!/usr/bin/env bash
# Joins this host to a Ray cluster, in the foreground: for systemd (Restart=always), or by hand.
#
#   ./start-worker.sh 10.0.0.4:6379 --num-gpus=1
set -euo pipefail

head="${1:?name the head, as host:port}"
shift
export RAY_gcs_rpc_server_reconnect_timeout_s="${RAY_gcs_rpc_server_reconnect_timeout_s:-600}"
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
# Ports that are told need not be waited for: see start-head.sh.
agents=(--dashboard-agent-grpc-port=20366 --runtime-env-agent-port=20367 --metrics-export-port=20368)
exec ray start --block --address="$head" "${agents[@]}" "$@"
