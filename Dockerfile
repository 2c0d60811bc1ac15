# Rankflow in one image, for CPUs (`--target cpu`, the default) or for NVIDIA GPUs (`--target gpu`). Every process of an
# installation runs from it, as all need the same versions of the code; `docker-compose.yml` says which there are.
#
#   docker build --target gpu --tag rankflow:0.1.0-gpu .
#
# Base images are pinned by tags with patch versions. For builds that repeat byte by byte add the digests that
# `docker buildx imagetools inspect IMAGE` shows.

FROM node:20.19.5-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY scripts/bundle-workflows.js scripts/
COPY src src
RUN npm run build && npm prune --omit=dev --ignore-scripts

FROM python:3.11.13-slim-bookworm AS uv
COPY python-activities/requirements-uv.txt /tmp/
RUN pip install --no-cache-dir --require-hashes --requirement /tmp/requirements-uv.txt \
 && uv venv --python /usr/local/bin/python3.11 /opt/rankflow/venv

FROM uv AS environment-cpu
COPY python-activities/requirements.txt /tmp/
RUN uv pip install --no-cache --python /opt/rankflow/venv/bin/python --compile-bytecode \
      --require-hashes --no-deps --requirement /tmp/requirements.txt

# vLLM's wheel for CUDA; its packages bring CUDA along, the driver comes from the host.
FROM uv AS environment-gpu
COPY python-activities/requirements-gpu.txt /tmp/
RUN uv pip install --no-cache --python /opt/rankflow/venv/bin/python --compile-bytecode \
      --require-hashes --no-deps --requirement /tmp/requirements-gpu.txt

FROM python:3.11.13-slim-bookworm AS runtime
LABEL org.opencontainers.image.title="Rankflow" \
      org.opencontainers.image.description="Durable offline LLM generation: Temporal workflows that run vLLM engines on Ray" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENV RANKFLOW_HOME=/opt/rankflow \
    PATH=/opt/rankflow/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app/python-activities \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    USE_TF=0
# vLLM's CPU build needs libnuma, and with tcmalloc it is a tenth faster; curl asks for health. Debian keeps only the
# newest version of a package, so a pinned one could not be installed for long.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends curl libnuma1 libtcmalloc-minimal4 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --user-group --create-home rankflow \
 && install -d -o rankflow -g rankflow /opt/rankflow /data
COPY --from=build /usr/local/bin/node /usr/local/bin/node
WORKDIR /app
COPY LICENSE ./
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY python-activities/rankflow python-activities/rankflow
COPY --chmod=755 deploy/docker/python-worker.sh /usr/local/bin/rankflow-python-worker
USER 1000:1000
# Each process has a health check of its own in docker-compose.yml; this one only says what there is.
HEALTHCHECK NONE
CMD ["node", "dist/cli/main.js", "--help"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    VLLM_USE_FLASHINFER_SAMPLER=0
USER 0
# Triton compiles launchers of its kernels when an engine loads. FlashInfer's sampler would need all of CUDA's compiler.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
USER 1000:1000
COPY --from=environment-gpu /opt/rankflow/venv /opt/rankflow/venv

FROM runtime AS cpu
COPY --from=environment-cpu /opt/rankflow/venv /opt/rankflow/venv
