#!/usr/bin/env bash
# Builds, tests, checks for memory errors and measures structloss on a machine with an NVIDIA GPU, without network:
#   bench/gpu_check.sh                 # PYTHON=... chooses another Python than python3; --help lists the options
#   bench/gpu_check.sh --dry-run       # the same steps at tiny sizes on the CPU, to try this script
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" -m bench.gpu_check "$@"
