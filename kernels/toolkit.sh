#!/bin/sh
# Installs nvcc with its libraries to a folder (target/cuda-toolkit by default), from NVIDIA's wheels on the Python package
# index: 104 MB. Needs neither root nor a driver nor a GPU. `cargo build --features cuda` finds it there.
#
#     kernels/toolkit.sh [FOLDER]
set -eu
target=${1:-$(dirname "$0")/../target/cuda-toolkit}
if [ -x "$target/bin/nvcc" ]; then
    exit 0
fi
mkdir -p "$target"
target=$(cd "$target" && pwd)
python3 -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target "$target/wheels" \
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
# nvcc looks for libraries in lib64.
ln -sfn lib "$target/wheels/nvidia/cu13/lib64"
for part in "$target"/wheels/nvidia/cu13/*; do
    ln -sfn "$part" "$target/$(basename "$part")"
done
"$target/bin/nvcc" --version | tail -1
