#!/usr/bin/env bash
# unpack.sh PARTS DIR: makes of the parts that stage.sh built a place to run in, on the GPU host.
# DIR/home is Rankflow's data folder then; its environment sees the carried packages before the host's own.
set -eu
parts=$(readlink -f "$1"); dir=$2
mkdir -p "$dir"; dir=$(readlink -f "$dir")
PATH=$parts:$PATH
cat "$parts"/part.* | zstd -dc --long=27 | tar -x -C "$dir"
host=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python3 -m venv --without-pip "$dir/home/venv"
own=$("$dir/home/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n%s\n' "$dir/site" "$host" > "$own/carried.pth"
mkdir -p "$dir/home/models"; ln -sfn "$dir/bin" "$dir/home/bin"; ln -sfn "$dir/model" "$dir/home/models/SmolLM2-135M-Instruct"
"$dir/home/venv/bin/python" "$dir/gguf_to_safetensors.py" "$dir/model/m.gguf" "$dir/model"
rm "$dir/model/m.gguf"
