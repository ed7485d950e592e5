#!/usr/bin/env bash
# The workspace's tests for aarch64, under qemu where the machine is none: tools/test_aarch64.sh [ARGUMENTS OF cargo test...]
# Without arguments all tests, with the command's feature `rknn` and without it. docs/aarch64.md says what the machine needs.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/aarch64_env.sh

probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
echo 'fn main() {}' >"$probe/probe.rs"
linker=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER-cc}
rustc --target "$TARGET" -C linker="$linker" -o "$probe/probe" "$probe/probe.rs" || {
  echo "test_aarch64.sh: rustc cannot build for $TARGET: install the target and $linker, or run this in tools/aarch64_root.sh" >&2
  exit 1
}
"$probe/probe" || {
  echo "test_aarch64.sh: an aarch64 program does not start: install qemu-user-binfmt, or run this in tools/aarch64_root.sh" >&2
  exit 1
}

test() {
  echo "+ cargo test $*"
  cargo test --locked --target "$TARGET" "$@"
}
if [[ $# -gt 0 ]]; then
  test "$@"
else
  test --workspace
  test -p rockshard-cli --features rknn
fi
