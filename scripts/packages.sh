# shellcheck shell=bash
# What the build and the tests need from the system, installed from Debian. Sourced after env.sh.

# The compiler, make and pkg-config are for the C libraries among the dependencies (aws-lc, SQLite, libffi, zlib …),
# libclang for the crates that read C headers, the certificates for cargo's downloads, curl for the demo.
# shellcheck disable=SC2034 # used by scripts/setup
build_packages=(ca-certificates curl g++ gcc libc6-dev libclang-dev make pkg-config)

# Servers that tests talk to, and a browser that looks at the pages. The tests start them on free loopback ports, with
# data in temporary directories.
# The -core packages of MariaDB are the programs without the system service.
# faketime sets the clock of a server, strace lets its disk fail. buildah, umoci and bubblewrap build, unpack and start
# images without a daemon; docker-compose and systemd read the files in deploy/; sqlite3 makes a backup.
service_packages=(
  bubblewrap buildah chromium chromium-driver docker-compose faketime mariadb-client-core mariadb-server-core
  openssh-server postgresql redis-server sqlite3 strace systemd umoci
)

missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
      printf '%s\n' "$package"
  done
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install_packages PURPOSE PACKAGE…: installs what is missing; where there is no apt-get, says what is needed.
install_packages() {
  local purpose=$1 missing
  shift
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "No apt-get here. Needed for $purpose, as Debian names it: $*. Going on as if it were there."
    return
  fi
  mapfile -t missing < <(missing_packages "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    die "packages for $purpose are missing, and only root can install them. Have root run this, then try again:
    apt-get update && apt-get install --no-install-recommends ${missing[*]}"
  fi
  say "Installing for $purpose: ${missing[*]}"
  local log
  log=$(mktemp)
  # A stale list of one source is no reason to stop: the install says what it cannot find.
  as_root apt-get update >"$log" 2>&1 </dev/null || true
  if ! as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -o DPkg::Lock::Timeout=120 --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    rm -f "$log"
    die "apt-get could not install them; its output is above"
  fi
  rm -f "$log"
}

# Installs the servers without starting them: a machine that runs tests should not gain a listening daemon, neither
# now nor after the next boot.
install_services() {
  local missing policy=/usr/sbin/policy-rc.d
  if ! command -v dpkg-query >/dev/null; then
    install_packages "the tests" "${service_packages[@]}"
    return
  fi
  mapfile -t missing < <(missing_packages "${service_packages[@]}")
  [ "${#missing[@]}" -gt 0 ] || return 0

  # Debian asks this program before it starts a service; 101 is "no". One that is there already is the admin's.
  local wrote_policy=no status=0
  if [ ! -e "$policy" ] && { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    wrote_policy=yes
  fi
  # In a subshell, so that a failure still leads past the clean-up.
  (install_packages "the tests" "${missing[@]}") || status=$?
  [ "$wrote_policy" = no ] || as_root rm -f "$policy"
  [ "$status" = 0 ] || exit "$status"

  if [ -d /run/systemd/system ]; then
    local package
    for package in "${missing[@]}"; do
      case $package in
        openssh-server) as_root systemctl disable --quiet ssh.service ;;
        postgresql) as_root systemctl disable --quiet postgresql.service ;;
        redis-server) as_root systemctl disable --quiet redis-server.service ;;
      esac
    done
  fi
}

# need_cargo_command COMMAND COMPONENT: rustup's minimal profile leaves some of cargo's commands out.
need_cargo_command() {
  cargo "$1" --version >/dev/null 2>&1 && return
  command -v rustup >/dev/null || die "cargo $1 is not installed; rustup has it as the component $2 (https://rustup.rs)"
  rustup component add "$2" >&2
}
