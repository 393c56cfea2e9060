# shellcheck shell=bash
# The environment of every build. Sourced by the other scripts; for cargo by hand, in bash: source scripts/env.sh
#
# Two things live outside the clone, so that the dependencies (about 940 crates and V8, a quarter of an hour and
# more) are compiled once per machine and not once per clone:
#
# - Cargo's target directory.
# - A copy of the V8 archive. The build script of the v8 crate runs again, and everything above that crate is
#   compiled again, when the *value* of RUSTY_V8_ARCHIVE changes. A path inside the clone is another value in every
#   clone; this path is the same in all of them.
#
# What you have set yourself stays as you set it.

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/fnhost
vendored_v8=librusty_v8_simdutf_release_x86_64-unknown-linux-gnu.a.gz

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}

# A terminal opened before rustup was installed does not know cargo yet.
if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
fi

# The archive matches its checksum, in the directory given.
v8_archive_is_whole() {
  (cd "$1" 2>/dev/null && sha256sum --check --status "$repo/vendor/v8/SHA256SUMS" 2>/dev/null)
}

# Puts the copy in place in one step, so that two builds at once cannot see half of it.
copy_v8_archive() {
  v8_archive_is_whole "$cache/v8" && return
  v8_archive_is_whole "$repo/vendor/v8" ||
    die "vendor/v8/$vendored_v8 does not match vendor/v8/SHA256SUMS: the checkout is damaged or incomplete"
  mkdir -p "$cache/v8"
  local copy
  copy=$(mktemp "$cache/v8/.copy-XXXXXX")
  cp "$repo/vendor/v8/$vendored_v8" "$copy"
  chmod 644 "$copy"
  mv -f "$copy" "$cache/v8/$vendored_v8"
}

# The archive is for x86_64 Linux with glibc; build.rs tells people on other systems what to set.
if [ -z "${RUSTY_V8_ARCHIVE:-}" ] && [ "$(uname -sm)" = "Linux x86_64" ] && getconf GNU_LIBC_VERSION >/dev/null 2>&1; then
  copy_v8_archive
  export RUSTY_V8_ARCHIVE=$cache/v8/$vendored_v8
fi
