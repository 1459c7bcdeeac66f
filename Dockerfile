# Three images out of one file, none with a compiler, all run by a user without rights:
#   docker build --target api -t ppd-api .                                  API and pages, no torch
#   docker build --target worker -t ppd-worker .                            worker, torch for CPUs
#   docker build --target worker --build-arg TORCH_INDEX=cu130 -t ppd-worker:cuda .
#   docker build -t ppd .                                                   the embedded default
# Bases are pinned by version tag. Their digests are not written here, because nobody has pulled
# and checked them for this file: pin them where you build (`docker buildx imagetools inspect TAG`).
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
# Set this to a mirror of PyPI where there is one.
ARG UV_DEFAULT_INDEX=https://pypi.org/simple
ENV UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX} \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip install --index-url ${UV_DEFAULT_INDEX} uv==${UV_VERSION} && uv venv /venv
WORKDIR /app
# Packages first: this layer is built anew only when they change, not with every line of code.
COPY pyproject.toml constraints.txt requirements.lock ./
ENV VIRTUAL_ENV=/venv
RUN --mount=type=cache,target=/var/cache/uv \
    uv pip install -c constraints.txt setuptools \
    && uv pip install -c requirements.lock -r pyproject.toml --extra serve --extra production --extra tracing --extra export --extra c2pa --extra moderation

FROM build AS build-model
# `cpu`, or a CUDA of https://download.pytorch.org/whl, `cu130` say.
ARG TORCH_INDEX=cpu
ARG TORCH_INDEX_ROOT=https://download.pytorch.org/whl
RUN --mount=type=cache,target=/var/cache/uv \
    uv pip install --index ${TORCH_INDEX_ROOT}/${TORCH_INDEX} --index-strategy unsafe-best-match \
      -c constraints.txt torch \
    && uv pip install -c requirements.lock -r pyproject.toml --extra model

# Editable: the weights, the pool, the pages and the migrations lie beside the code.
FROM build AS built-api
COPY README.md LICENSE ./
COPY ppd_model ppd_model
COPY service service
COPY migrations migrations
RUN uv pip install --no-deps --no-build-isolation -e .

FROM build-model AS built-worker
COPY README.md LICENSE ./
COPY ppd_model ppd_model
COPY service service
COPY migrations migrations
RUN uv pip install --no-deps --no-build-isolation -e .

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin ppd \
    && install -d -o ppd -g ppd -m 0700 /data
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PPD_DATA_DIR=/data
USER 10001:10001
VOLUME /data
STOPSIGNAL SIGTERM

# Health checks wait longer for a Python to start on a busy machine than for the answer.
FROM runtime AS api
COPY --from=built-api /venv /venv
COPY --from=built-api /app /app
ENV PPD_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/live', timeout=2)"]
CMD ["python", "-m", "service.cli", "serve", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS worker
COPY --from=built-worker /venv /venv
COPY --from=built-worker /app /app
EXPOSE 9100
HEALTHCHECK --interval=15s --timeout=10s --start-period=300s CMD ["python", "-c", \
    "import urllib.request as u; u.urlopen('http://127.0.0.1:9100/metrics', timeout=2)"]
CMD ["python", "-m", "service.cli", "worker", "--queues", "encode,generate", \
    "--metrics-host", "0.0.0.0", "--metrics-port", "9100"]

# The embedded default in one image: API, pages and worker over SQLite, on CPUs.
FROM runtime AS embedded
COPY --from=built-worker /venv /venv
COPY --from=built-worker /app /app
ENV PPD_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/live', timeout=2)"]
CMD ["python", "-m", "service.cli", "serve", "--host", "0.0.0.0", "--port", "8000"]
