# shellcheck shell=bash
# Shared by scripts/* and .ci/run: where things are kept, and how Debian packages are installed.
#
# Sourced, never run. Everything here may run any number of times; what is done already costs milliseconds.
# Callers use `set -euo pipefail` and stand in the repository.

# Where builds and test tools live, outside of the checkout, so that a fresh clone finds them again.
cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/posthaste
test_tools_dir=$cache_dir/test-tools

# Daemons that come with packages which tests need. Tests start their own copies on unprivileged ports, never the system's.
test_services=(postfix postgrey knot haproxy)

say() { printf '\n== %s\n' "$*" >&2; }

die() {
  printf '%s: %s\n' "$0" "$*" >&2
  exit 1
}

# Builds outside of the checkout, because RocksDB takes ten minutes to compile. A variable that is set already wins.
use_build_cache() {
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache_dir/target}
  if command -v ccache >/dev/null; then
    export CC=${CC:-ccache gcc} CXX=${CXX:-ccache g++}
  fi
}

need_cargo() {
  command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup, rust-toolchain.toml names the version"
}

# Daemons live in sbin, which is not on everybody's PATH.
has_command() { PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$1" >/dev/null; }

is_installed() {
  local package=${1%%:*} probe=${1##*:}
  [ "$probe" != - ] && has_command "$probe" && return 0
  if [ "$package" = python3-venv ] && python3 -c 'import ensurepip' 2>/dev/null; then
    return 0
  fi
  case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
    ii*) return 0 ;;
  esac
  return 1
}

# As root: directly, or through sudo.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    sudo -- "$@"
  fi
}

# install_missing PACKAGE:PROBE...: the probe is a command that shows that the job can be done, or `-` where only dpkg
# knows. Installs those that are not there. Never removes a package and starts no service.
install_missing() {
  local entry missing=()
  for entry in "$@"; do
    is_installed "$entry" || missing+=("${entry%%:*}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "install what these Debian packages hold, then run this again: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    die "not root and no sudo: as root, run: apt-get install ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive bash -c "$(declare -f apt_install); apt_install \"\$@\"" apt "${missing[@]}" ||
    die "apt-get could not install ${missing[*]}; its own words are above (it is told to remove nothing: another mail" \
      "server on this machine, such as exim4, keeps postfix out)"
  disable_services "${missing[@]}"
}

# Runs as root, alone in its shell.
apt_install() {
  local policy=/usr/sbin/policy-rc.d
  set -euo pipefail
  if [ ! -e "$policy" ]; then
    # While it is there, package scripts start no service.
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    # Expanded now: the variable is gone when the trap runs.
    # shellcheck disable=SC2064
    trap "rm -f '$policy'" EXIT
  fi
  # Postfix asks what to set up: nothing.
  if command -v debconf-set-selections >/dev/null; then
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
  fi
  local options=(-y -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  apt-get "${options[@]}" update
  apt-get "${options[@]}" install --no-install-recommends --no-remove "$@"
}

# What this run installed must not start with the next boot either.
disable_services() {
  local service package
  command -v systemctl >/dev/null || return 0
  for package in "$@"; do
    for service in "${test_services[@]}"; do
      if [ "$package" = "$service" ]; then
        as_root systemctl disable "$service" >/dev/null 2>&1 || say "could not disable the service $service: do it by hand"
      fi
    done
  done
}

# Python and Node packages that the tests drive, in $test_tools_dir/venv and $test_tools_dir/node_modules. One run at a time;
# a stamp is written last, so that an interrupted run is repeated.
install_test_tools() {
  local lists=$PWD/scripts/test-tools stamp=$test_tools_dir/stamp wanted
  wanted=$(cat "$lists/requirements.txt" "$lists/package.json" && python3 --version && node --version)
  mkdir -p "$test_tools_dir"
  exec 9>"$test_tools_dir/lock"
  flock 9
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    say "installing test tools into $test_tools_dir"
    rm -rf "$stamp" "$test_tools_dir/venv" "$test_tools_dir/node_modules"
    python3 -m venv "$test_tools_dir/venv"
    "$test_tools_dir/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$lists/requirements.txt"
    cp "$lists/package.json" "$test_tools_dir/package.json"
    npm install --prefix "$test_tools_dir" --no-package-lock --no-audit --no-fund --no-update-notifier --loglevel=error
    printf '%s\n' "$wanted" >"$stamp"
  fi
  exec 9>&-
}

# unpack NAME PACKAGE...: Debian packages of which only one can be installed (each wants to be the mail server of the machine), in a
# directory of their own, $test_tools_dir/roots/NAME, with the libraries that their programs need, from here or from their packages: tests
# copy it, and run them there by chroot. Nothing of it touches the system.
unpack() {
  local root=$test_tools_dir/roots/$1 work deb file library libraries
  shift
  [ ! -f "$root.stamp" ] || return 0
  say "unpacking $* into $root"
  command -v apt-get >/dev/null || die "the tests need what these Debian packages hold, unpacked into $root: $*"
  work=$(mktemp -d)
  mapfile -t libraries < <(missing_libraries "$@" | sort -u)
  # Fails where the lists of packages are old.
  (cd "$work" && apt-get -q download "$@" "${libraries[@]}") >&2 || {
    as_root apt-get -q update >&2
    mapfile -t libraries < <(missing_libraries "$@" | sort -u)
    (cd "$work" && apt-get -q download "$@" "${libraries[@]}") >&2
  }
  rm -rf "$root"
  mkdir -p "$root/etc" "$root/dev" "$root/tmp" "$root/var/run"
  for deb in "$work"/*.deb; do
    dpkg -x "$deb" "$root"
  done
  rm -rf "$work"
  # Sendmail's macros for its config are there.
  find "$root/usr/share" -mindepth 1 -maxdepth 1 ! -name sendmail -exec rm -rf {} +
  find "$root" -type f '(' -perm /111 -o -name '*.so*' ')' | while read -r file; do
    ldd "$file" 2>/dev/null | awk '/=> \// { print $3 } /^\t\// { print $1 }' || true
  done | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
  touch "$root.stamp"
}

# The libraries that packages need, as far as they are not installed on this machine.
missing_libraries() {
  local package found next=("$@")
  while [ ${#next[@]} -gt 0 ]; do
    mapfile -t found < <(apt-cache depends "${next[@]}" | awk '/^  (Pre)?Depends: lib/ { print $2 }' | sort -u)
    next=()
    for package in "${found[@]}"; do
      is_installed "$package:-" || next+=("$package")
    done
    [ ${#next[@]} -eq 0 ] || printf '%s\n' "${next[@]}"
  done
}

# Whether the tests of the systemd unit can run: they boot a systemd in namespaces and a cgroup of its own. Says what is
# missing, and returns 1, where they cannot.
can_boot_systemd() {
  local lacking='' cgroup
  cgroup=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
  if [ "$(id -u)" -ne 0 ]; then
    lacking='you are not root'
  elif [ -z "$cgroup" ]; then
    lacking='no cgroup2 file system is mounted'
  elif ! [ -w "$cgroup/cgroup.procs" ]; then
    lacking="$cgroup is read-only"
  elif ! unshare --mount --pid --net --uts --ipc --cgroup --fork mount -t tmpfs none /mnt 2>/dev/null; then
    lacking='namespaces and mounts are forbidden here'
  fi
  [ -z "$lacking" ] || {
    printf '%s\n' "$lacking"
    return 1
  }
}
