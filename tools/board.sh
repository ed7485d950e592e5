#!/usr/bin/env bash
# Make the tarball that goes to a board: tools/board.sh [FOLDER], into target/board where none is named.
# FEATURES are those of the command (rknn). docs/aarch64.md says what the machine needs.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/aarch64_env.sh
features=${FEATURES-rknn}
out=${1:-target/board}
readelf=$(command -v aarch64-linux-gnu-readelf || command -v readelf) || {
  echo 'board.sh: readelf is not there: install binutils' >&2
  exit 1
}
# The oldest C library that boards come with: Debian 11's.
oldest=2.31

cargo build --locked --release --target "$TARGET" -p rockshard-cli --features "$features"
binary=${CARGO_TARGET_DIR:-target}/$TARGET/release/rockshard
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
needs=$("$readelf" --version-info "$binary" | grep -o 'GLIBC_2[.0-9]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
if [[ $(printf '%s\n' "$needs" "$oldest" | sort -V | tail -n 1) != "$oldest" ]]; then
  echo "board.sh: NOTE: this binary needs glibc $needs or newer, Debian 11 has $oldest; link with an older C library (docs/aarch64.md)" >&2
fi

name=rockshard-$version-aarch64-linux
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/$name/shards" "$out"
install -m 755 "$binary" "$work/$name/rockshard"
cp -R shards/tiny-lcm shards/tiny-vlm "$work/$name/shards/"
cp LICENSE-APACHE LICENSE-MIT "$work/$name/"
python3 tools/third_party.py "$TARGET" --features "$features" >"$work/$name/LICENSES-OF-CRATES.txt"
sed "s/@GLIBC@/$needs/; s/@VERSION@/$version/" tools/board_readme.md >"$work/$name/README.md"
# Equal contents give equal bytes.
tar --directory "$work" --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@${SOURCE_DATE_EPOCH:-0}" --create "$name" |
  gzip --no-name --best >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz")
echo "$out/$name.tar.gz: $(stat --format %s "$out/$name.tar.gz") bytes, needs glibc $needs"
