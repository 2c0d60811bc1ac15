#!/usr/bin/env bash
# several.sh OUT [MODEL]: one model on all GPUs of this host, engines × GPUs of an engine, 8 ranks; then scaling, and
# an engine that is killed and a fleet that grows in mid-run. After environment.sh. MODEL `simulated` tries what needs
# no GPU. SCALE times the rows of one engine (default 40), ENGINE_ARGS further options of `python -m bench`.
set -u
out=$1; model=${2:-SmolLM2-135M-Instruct}; scale=${SCALE:-40}; here=$(dirname "$(readlink -f "$0")")
gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | wc -l)
options=(--home "$RANKFLOW_HOME" --ranks 8)
if [ "$model" = simulated ]; then
  gpus=${GPUS:-2}; options+=(--smoke)
else
  # NVLink multicast is off: a program that uses it can put a shared host's cards out of service.
  export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 VLLM_ALLREDUCE_USE_SYMM_MEM=0
  options+=(--model "$model" --gpu-share 1 --scale "$scale" --max-num-seqs 512 --workloads equal mixed)
fi
# shellcheck disable=SC2206
options+=(${ENGINE_ARGS:-})

# ENGINES TENSOR: what runs side by side is bare vLLM and Rankflow, loaded one after the other.
layout() {
  echo "== $1 engines of $2 GPUs"
  python -m bench "${options[@]}" --engines "$1" --tensor-parallel "$2" \
    --contenders "bare:$1" "rankflow:$1" --out "$out/$1x$2"
}

for tensor in 1 2 4 8; do
  if [ $((gpus % tensor)) = 0 ]; then layout $((gpus / tensor)) "$tensor"; fi
done
for ((engines = 1; engines < gpus; engines *= 2)); do layout "$engines" 1; done
if [ "$gpus" -ge 2 ]; then
  node "$here/disturb.js" kill "$model" $((gpus / 2)) "$out/kill.json"
  node "$here/disturb.js" scale "$model" $((gpus / 2)) "$out/scale.json"
fi
