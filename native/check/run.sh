#!/usr/bin/env bash
# Builds the kernels and the gRPC front end with sanitizers and drives them with good and hostile input; see check.cpp and
# front.cpp. The front end is left out where pkg-config finds no libnghttp2.
#   native/check/run.sh [CASES]      CXX chooses the compiler
# NEON is driven too, by an emulator, where there are aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu
# and qemu-user).
set -euo pipefail
cd "$(dirname "$0")/.."
cases=${1:-20000}
cxx=${CXX:-g++}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags=(-std=c++17 -Iinclude -O1 -g -fno-omit-frame-pointer -ffp-contract=off -Wno-psabi -Wno-uninitialized -Wno-maybe-uninitialized)
declare -A sets=([neondot]="-march=armv8.2-a+dotprod")
macros=(-DBIRNN_HAVE_NEONDOT)
if [ "$(uname -m)" = x86_64 ]; then
  avx512="-mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl"
  sets=([avx2]="-mavx2 -mfma" [avxvnni]="-mavx2 -mfma -mavxvnni" [avx512]="$avx512" [avx512vnni]="$avx512 -mavx512vnni"
    [avx512bf16]="$avx512 -mavx512bf16")
  macros=(-DBIRNN_HAVE_AVX2 -DBIRNN_HAVE_AVXVNNI -DBIRNN_HAVE_AVX512 -DBIRNN_HAVE_AVX512VNNI -DBIRNN_HAVE_AVX512BF16)
fi

build() { # NAME SANITIZERS
  mkdir -p "$out/$1"
  local pids=()
  for name in "${!sets[@]}" portable portable_int8 encoder library; do
    # shellcheck disable=SC2086  # flags are words
    "$cxx" "${flags[@]}" "${macros[@]}" "-fsanitize=$2" -fno-sanitize-recover=all ${sets[$name]:-} \
      -c "src/$name.cpp" -o "$out/$1/$name.o" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; done
  "$cxx" "${flags[@]}" "-fsanitize=$2" -fno-sanitize-recover=all check/check.cpp "$out/$1"/*.o -pthread -o "$out/$1/check"
}

build address address,undefined
for seed in 1 2 3 4; do "$out/address/check" "$seed" $((cases / 4)); done
"$out/address/check" threads
"$out/address/check" agree $((cases / 20)) | tee "$out/agree"
build thread thread
"$out/thread/check" threads

build_front() { # SANITIZERS
  # shellcheck disable=SC2046  # flags are words
  "$cxx" "${flags[@]}" -fno-access-control "-fsanitize=$1" -fno-sanitize-recover=all src/front/*.cpp check/front.cpp \
    $(pkg-config --cflags --libs libnghttp2) -pthread -o "$out/front"
}

if ! pkg-config --exists 'libnghttp2 >= 1.52'; then
  echo "front: skipped, needs pkg-config and libnghttp2 (Debian: pkg-config and libnghttp2-dev)"
else
  build_front address,undefined
  for seed in 1 2 3; do "$out/front" "$seed" $((cases / 40)); done
  build_front thread
  "$out/front" 4 $((cases / 40))
fi

if [ "$(uname -m)" = aarch64 ]; then
  exit  # that was NEON
elif ! command -v aarch64-linux-gnu-g++ > /dev/null || ! command -v qemu-aarch64 > /dev/null; then
  echo "aarch64: skipped, needs aarch64-linux-gnu-g++ and qemu-aarch64"
else
  # Optimized as it is installed. The emulator knows no AddressSanitizer, and a sanitizer that traps needs no library.
  cxx=aarch64-linux-gnu-g++ flags+=(-O3 -static -fsanitize-undefined-trap-on-error) macros=(-DBIRNN_HAVE_NEONDOT)
  sets=([neondot]="-march=armv8.2-a+dotprod")
  build aarch64 undefined
  echo "aarch64:"
  qemu-aarch64 "$out/aarch64/check" 1 $((cases / 10))
  qemu-aarch64 "$out/aarch64/check" threads
  qemu-aarch64 "$out/aarch64/check" agree $((cases / 20)) | tee "$out/agree-aarch64"
  # The same bits as on the other processor.
  [ "$(grep -o 'digest.*' "$out/agree")" = "$(grep -o 'digest.*' "$out/agree-aarch64")" ] || {
    echo "int8 has other bits on aarch64"
    exit 1
  }
fi
