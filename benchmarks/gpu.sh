#!/usr/bin/env bash
# All checks and measurements that need a CUDA GPU, in under ten minutes on one that holds the 8B
# model in bf16 (24 GB):
#
#     benchmarks/gpu.sh [FOLDER]
#
# Needs a Python with nsarm's dependencies (PYTHON=python3 by default) and no network. Results are
# files in FOLDER (gpu-results by default); a step that fails or takes too long is noted there, and
# the others go on.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-gpu-results}" && cd "${1:-gpu-results}" && pwd)
python=${PYTHON:-python3}
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$out/compiled}
failed=0

step() { # step NAME SECONDS COMMAND...: what it prints goes to NAME.txt, what it says to NAME.log
  local name=$1 limit=$2 began=$SECONDS code=0
  shift 2
  timeout "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.log" || code=$?
  [ "$code" = 0 ] || failed=$((failed + 1))
  printf '%-28s exit %s, %s s\n' "$name" "$code" "$((SECONDS - began))" | tee -a "$out/steps.txt"
}
bench() { # bench NAME SECONDS OPTIONS...
  local name=$1 limit=$2
  shift 2
  step "$name" "$limit" "$python" -m nsarm_cli bench --device cuda --json "$@"
}

: >"$out/steps.txt"
nvidia-smi >"$out/nvidia-smi.txt" 2>&1
step tests 95 "$python" -m pytest -q -p no:cacheprovider tests/gpu tests/benchmark/test_clock.py
bench 8b-eager 35 --model nsarm-8b --precision bf16
# Compiled: the first run compiles, the second records CUDA graphs, from the third on they are played.
bench 8b-compiled 100 --model nsarm-8b --precision bf16 --compile --warmup 3
bench 8b-fp8-compiled 80 --model nsarm-8b --precision bf16 --quantize fp8 --compile --warmup 3
bench 8b-batch-4 35 --model nsarm-8b --precision bf16 --batch 4 --repeat 3
bench 8b-int8 30 --model nsarm-8b --precision bf16 --quantize int8
bench 8b-picture 35 --model nsarm-8b --precision bf16 --picture 256
bench varsr 25 --model varsr --precision bf16
bench nano 20 --model nsarm-nano --precision bf16
bench nano-batch-32 20 --model nsarm-nano --precision bf16 --batch 32
step attention 35 "$python" benchmarks/attention.py
# A step of training with two blocks of the 8B's width.
printf 'base = "nsarm-8b-stage2"\nmodel = "wide"\nbatch = 1\n' >"$out/wide.toml"
step train-wide 40 "$python" -m nsarm_cli train stage2 --config "$out/wide.toml" --dry-run --device cuda
step quantize-cost 25 "$python" benchmarks/quantize_cost.py --device cuda \
  docs/images/coffee.png tests/goldens/photos/*.png
step loading 20 "$python" benchmarks/loading.py --device cuda
echo "$failed steps failed; results are in $out"
[ "$failed" = 0 ]
