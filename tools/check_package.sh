#!/usr/bin/env bash
# Whether the facade and every crate it needs could be published: packs each and builds it from its package.
# Publishing is off in the checkout, and cargo packs crates that depend on each other only where it is on: so this works on a copy.
# Usage: tools/check_package.sh [CARGO PACKAGE OPTIONS]
set -euo pipefail
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$copy"
sed -i 's/^publish = false$/publish = ["crates-io"]/' "$copy/Cargo.toml"
# What cargo has kept, or built, of packages of before has the same versions, and would be taken for these.
rm -rf "${CARGO_HOME:-$HOME/.cargo}"/registry/{src,cache}/*/rockshard-[0-9a-z]*
cd "$copy"
# The command with its server, the benches and the check through rknn-rs are no libraries that the facade needs.
CARGO_TARGET_DIR=$copy/target cargo package --locked --allow-dirty --workspace --exclude rockshard-cli --exclude rockshard-server \
  --exclude rockshard-benches --exclude rockshard-rknn-rs-check "$@"
