#!/usr/bin/env bash
# A folder with a Rust toolchain that builds for aarch64 and qemu to run what it built, for machines whose own toolchain has
# no such target. It holds packages of Debian, unpacked and not installed, and takes about 2.5 GB.
#
#   tools/aarch64_root.sh DIR                 make it (about a minute; needs apt, dpkg and debian-archive-keyring)
#   tools/aarch64_root.sh DIR COMMAND...      run a command in it: this checkout and cargo's downloads are there under their
#                                             own paths, the network is not used, and aarch64 programs start as native ones do
#
# DEBIAN_MIRROR is where packages come from (the machine's own mirror where it runs Debian, else deb.debian.org).
# No root is needed where user namespaces are allowed; what is mounted ends with the command.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:?usage: tools/aarch64_root.sh DIR [COMMAND...]}
shift
root=$(mkdir -p "$dir" && cd "$dir" && pwd)
fail() {
  printf 'aarch64_root.sh: %s\n' "$1" >&2
  exit 1
}

packages=(bash cargo cmake coreutils diffutils file findutils g++ g++-aarch64-linux-gnu git grep gzip libstd-rust-dev:arm64 make
  mount pkgconf procps python3 qemu-user rustc sed tar)

# The C library that programs are linked with: Debian 11's, the oldest that boards come with.
board=opt/board
board_packages=(libc6:arm64 libc6-dev:arm64 libgcc-s1:arm64)

# get SUITE COMMAND... : have apt-get download from a suite, into $apt/debs.
get() {
  local options=(-qq -oDir::Etc::sourcelist="$apt/sources.list" -oDir::Etc::sourceparts=- -oDir::State::Lists="$apt/lists"
    -oDir::State::status=/dev/null -oDir::Cache="$apt" -oDir::Cache::Archives=debs -oAPT::Architecture=amd64
    -oAPT::Architectures=amd64 -oAPT::Architectures::=arm64 -oAPT::Sandbox::User= -oDebug::NoLocking=1)
  rm -rf "$apt"
  mkdir -p "$apt"/{lists,debs}/partial
  echo "deb [arch=amd64,arm64 signed-by=$keys] $mirror $1 main" >"$apt/sources.list"
  apt-get "${options[@]}" update
  (cd "$apt/debs" && apt-get "${options[@]}" --no-install-recommends "${@:2}")
}
unpack() {
  local package
  mkdir -p "$1"
  for package in "$apt"/debs/*.deb; do dpkg -x "$package" "$1"; done
}

make_root() {
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg apt=$root/.apt mirror=${DEBIAN_MIRROR:-}
  [[ -e $keys ]] || fail "$keys is not there: install debian-archive-keyring"
  if [[ -z $mirror ]]; then
    mirror=$(. /etc/os-release && [[ $ID == debian ]] && apt-get indextargets --format '$(SITE)' | head -n 1) || true
  fi
  mirror=${mirror:-https://deb.debian.org/debian}
  get sid --yes --download-only install "${packages[@]}"
  unpack "$root"
  get bullseye download "${board_packages[@]}"
  unpack "$root/$board"
  rm -rf "$apt"
  # What the packages' own scripts would do.
  ln -sf bash "$root/usr/bin/sh"
  ln -sf gcc "$root/usr/bin/cc"
  ln -sf g++ "$root/usr/bin/c++"
  local link at=/$board lib=lib/aarch64-linux-gnu
  find "$root$at" -type l -lname '/*' | while read -r link; do ln -sf "$at$(readlink "$link")" "$link"; done
  printf '#!/bin/sh\nexec aarch64-linux-gnu-gcc %s "$@"\n' "--sysroot=$at -B$at/usr/$lib -L$at/usr/$lib -L$at/$lib" \
    >"$root/usr/bin/aarch64-board-gcc"
  chmod 755 "$root/usr/bin/aarch64-board-gcc"
  touch "$root/.complete"
}

[[ -e $root/.complete ]] || make_root
[[ $# -gt 0 ]] || exit 0

cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$root$checkout" "$root$cargo_home/registry" "$root/proc" "$root/dev" "$root/tmp" "$root/run/binfmt"
export root checkout cargo_home where=$PWD
[[ $where/ == "$checkout"/* ]] || where=$checkout
# shellcheck disable=SC2016
exec unshare --user --map-root-user --mount bash -euc '
  mount --bind "$checkout" "$root$checkout"
  mount --bind "$cargo_home/registry" "$root$cargo_home/registry"
  mount --rbind /proc "$root/proc"
  mount --rbind /dev "$root/dev"
  if [[ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]]; then
    # Formats that this user namespace alone knows; Linux 6.7 has such.
    mount -t binfmt_misc binfmt_misc "$root/run/binfmt" ||
      { echo "aarch64_root.sh: install qemu-user-binfmt: this kernel has no formats of programs for a user namespace" >&2; exit 1; }
    # 64-bit little-endian ELF executables and shared objects for machine 183. F: qemu is opened now, P: it is told argv[0].
    magic="\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    mask="\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    printf "%s" ":qemu-aarch64:M::$magic:$mask:$root/usr/bin/qemu-aarch64:FP" >"$root/run/binfmt/register"
  fi
  exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/bin:/usr/sbin LANG=C.UTF-8 CARGO_HOME="$cargo_home" \
    CARGO_NET_OFFLINE=true CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-board-gcc \
    ${CARGO_TARGET_DIR:+CARGO_TARGET_DIR="$CARGO_TARGET_DIR"} bash -c "cd \"\$0\" && exec \"\$@\"" "$where" "$@"
' bash "$@"
