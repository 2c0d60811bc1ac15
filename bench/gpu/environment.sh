# Source with DIR set, on the GPU host, in the package's folder: the environment of a benchmark there.
export RANKFLOW_HOME=$DIR/home PATH=$DIR/bin:$DIR/home/venv/bin:$PATH
export HF_HUB_OFFLINE=1 USE_TF=0 VLLM_NO_USAGE_STATS=1 RAY_USAGE_STATS_ENABLED=0
# Built at the first use, which needs more than the host has.
export VLLM_USE_FLASHINFER_SAMPLER=0 VLLM_CACHE_ROOT=$DIR/cache
export PYTHONPATH=$PWD:$PWD/python-activities
TEMPORAL_ADDRESS=$(node bench/gpu/stack.js)
export TEMPORAL_ADDRESS
