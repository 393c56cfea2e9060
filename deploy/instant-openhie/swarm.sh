#!/usr/bin/env bash
# What Instant OpenHIE calls: swarm.sh init|up|down|destroy [dev|prod]
#
# docker-utils.sh and log.sh come with Instant OpenHIE, beside the packages.
set -euo pipefail

action=${1:-} mode=${2:-prod}
package=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
stack=fnhost

# shellcheck disable=SC1091
source "$package/../utils/docker-utils.sh"
# shellcheck disable=SC1091
source "$package/../utils/log.sh"

case $action in
  init | up)
    overrides=()
    if [ "$mode" = dev ]; then
      overrides+=(docker-compose.dev.yml)
    fi
    docker::deploy_service "$stack" "$package" docker-compose.yml "${overrides[@]}"
    ;;
  down) docker::scale_services "$stack" 0 ;;
  destroy)
    # Takes the volume, and with it messages and runs, along.
    docker::stack_destroy "$stack"
    ;;
  *)
    log error "$0: init, up, down or destroy"
    exit 2
    ;;
esac
