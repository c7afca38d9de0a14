# syntax=docker/dockerfile:1.9
# What every service's image stands on: the interpreter, the installed requirements, and the library. Two arguments choose:
#
#   VARIANT  cpu or cuda. CUDA's libraries come with PyTorch's wheels; the driver comes from the host.
#   EXTRAS   gateway (no PyTorch), serve and wan (the workers), train (training on Ray)
#
# FLASH=yes builds flash-attn too, which takes long and needs a GPU's compiler; without it PyTorch's own attention is used.
# TORCH_INDEX names a package index with CPU builds of PyTorch; without it the cpu variant may install gigabytes of CUDA.
ARG VARIANT=cpu

FROM python:3.12.12-slim-bookworm AS system-cpu
ENV PYTHON=/usr/local/bin/python3.12

FROM nvidia/cuda:12.8.1-base-ubuntu24.04 AS system-cuda
ENV PYTHON=/usr/bin/python3.12 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.12 \
    && rm -rf /var/lib/apt/lists/*

FROM system-cpu AS build-cpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*

FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS build-cuda
ENV PYTHON=/usr/bin/python3.12
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential python3.12-dev python3.12-venv \
    && rm -rf /var/lib/apt/lists/*

# hadolint ignore=DL3006
FROM build-${VARIANT} AS requirements
ARG EXTRAS=serve
ARG FLASH=""
ARG TORCH_INDEX=""
WORKDIR /build
# The package's metadata alone: a change of code does not install everything anew.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY teleworld/__init__.py teleworld/__init__.py
RUN "$PYTHON" -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --constraint constraints.txt ".[${EXTRAS}]"
# It is built against the PyTorch that was just installed, so not in isolation.
RUN if [ -n "$FLASH" ]; then \
        /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt ninja packaging setuptools \
        && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt --no-build-isolation ".[flash]"; \
    fi \
    && /opt/venv/bin/pip uninstall --yes teleworld

# hadolint ignore=DL3006
FROM system-${VARIANT} AS base
COPY --from=requirements /opt/venv /opt/venv
WORKDIR /app
COPY teleworld teleworld
COPY checkpoints/nano checkpoints/nano
COPY services/__init__.py services/__init__.py
COPY services/common services/common
COPY docker/healthcheck.py docker/healthcheck.py
COPY LICENSE LICENSE
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/var/cache/teleworld
RUN python -m compileall -q /app \
    && install --directory --owner=10001 --group=10001 /var/cache/teleworld
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=3s --start-period=180s --retries=3 CMD ["python", "/app/docker/healthcheck.py"]
ENTRYPOINT ["python", "-m"]
