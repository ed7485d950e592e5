# To be sourced: what cargo and C build scripts need to build for aarch64, and qemu to find the C library. What is already set stays.
export TARGET=aarch64-unknown-linux-gnu
if [[ $(uname -m) != aarch64 ]]; then
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER-aarch64-linux-gnu-gcc}
  export CC_aarch64_unknown_linux_gnu=${CC_aarch64_unknown_linux_gnu-aarch64-linux-gnu-gcc}
  export CXX_aarch64_unknown_linux_gnu=${CXX_aarch64_unknown_linux_gnu-aarch64-linux-gnu-g++}
  [[ -e /lib/ld-linux-aarch64.so.1 ]] || export QEMU_LD_PREFIX=${QEMU_LD_PREFIX-/usr/aarch64-linux-gnu}
fi
