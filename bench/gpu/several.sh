#!/usr/bin/env bash
# several.sh OUT PART...: the benchmark on all GPUs of this host, after environment.sh, with 8 ranks. PARTs:
#   engines   one engine on each GPU
#   tensor    engines of 2, 4 and 8 GPUs, as many as there are GPUs for
#   ray-data  Ray Data LLM with one engine on each GPU
#   many      four engines of the small model on each GPU
#   kill      one engine on each GPU, one of which is killed in mid-run
#   scale     a fleet of the small model with half of a GPU for each engine, which grows from half of the GPUs to all
# SCALE times the rows of one engine (default 40), WORKLOADS (equal mixed), MODEL for all but `many` and `scale`:
# llama-7b-random, made here of large/config.json, unless it is given.
set -u
out=$1; shift; scale=${SCALE:-40}; workloads=${WORKLOADS:-equal mixed}; model=${MODEL:-llama-7b-random}
small=SmolLM2-135M-Instruct; here=$(dirname "$(readlink -f "$0")"); mkdir -p "$out"
gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader | wc -l)
weights=()
if [ "$model" = llama-7b-random ]; then
  weights=(--engine-arg load_format=dummy)
  cp -rn "$RANKFLOW_HOME/models/$small/." "$RANKFLOW_HOME/models/$model"
  rm -f "$RANKFLOW_HOME/models/$model"/*.safetensors*
  cp "$here/large/config.json" "$RANKFLOW_HOME/models/$model/"
fi

# SHARE MODEL OPTIONS...: `python -m bench` with the settings that all parts share.
bench() {
  local share=$1 name=$2; shift 2
  # shellcheck disable=SC2086
  python -m bench --home "$RANKFLOW_HOME" --ranks 8 --gpu-share "$share" --model "$name" --scale "$scale" \
    --max-num-seqs 512 --workloads $workloads --together "$@"
}

# HOW MODEL ENGINES SHARE ROWS OPTIONS...: a run that is disturbed; ROWS of one engine.
disturb() {
  local how=$1 name=$2 engines=$3 share=$4 rows=$5; shift 5
  node "$here/../disturb.js" "$how" --model "$RANKFLOW_HOME/models/$name" --engines "$engines" --rows "$rows" \
    --out "$out/$how.json" -- --no-start --ranks 8 --gpus-per-engine "$share" --max-num-seqs 512 \
    --max-model-len 2048 "$@"
}

# Given, so that engines of several contenders can be loaded beside each other.
cache=(--engine-arg kv_cache_memory_bytes=16000000000 --engine-arg gpu_memory_utilization=0.05)
for part in "$@"; do
  echo "== $part on $gpus GPUs"
  case $part in
    engines) bench 1 "$model" --contenders "bare:$gpus" "rankflow:$gpus" "${cache[@]}" "${weights[@]}" --out "$out/engines" ;;
    tensor)
      for tensor in 2 4 8; do
        [ "$tensor" -le "$gpus" ] || continue
        bench 1 "$model" --tensor-parallel "$tensor" "${cache[@]}" "${weights[@]}" \
          --contenders "bare:$((gpus / tensor))" "rankflow:$((gpus / tensor))" --out "$out/tensor-$tensor"
      done ;;
    ray-data) bench 1 "$model" --contenders "ray-data:$gpus" "${cache[@]}" "${weights[@]}" --out "$out/ray-data" ;;
    many)
      bench 0.25 "$small" --contenders "bare:$((4 * gpus))" "rankflow:$((4 * gpus))" --out "$out/many" \
        --engine-arg kv_cache_memory_bytes=4000000000 --engine-arg gpu_memory_utilization=0.05 ;;
    kill) disturb kill "$model" "$gpus" 1 "${ROWS:-14000}" "${cache[@]}" "${weights[@]}" ;;
    scale)
      disturb scale "$small" "$gpus" 0.5 "${ROWS:-28000}" \
        --engine-arg kv_cache_memory_bytes=4000000000 --engine-arg gpu_memory_utilization=0.05 ;;
    *) echo "no part $part"; exit 2 ;;
  esac
done
