# The embedded default in one image: API, pages and worker over SQLite, on CPUs.
#   docker build -t ppd .
#   docker run -p 8000:8000 -v ppd-data:/data ppd

FROM python:3.11-slim AS build
ARG PIP_OPTIONS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ppd_model ppd_model
COPY service service
COPY migrations migrations
# Editable: the weights, the pool, the pages and the migrations lie beside the code.
RUN /venv/bin/pip install ${PIP_OPTIONS} -c constraints.txt -e ".[model,serve,production]"

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin ppd \
    && install -d -o ppd -g ppd -m 0700 /data
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PPD_DATA_DIR=/data
USER ppd
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/live', timeout=2)"]
CMD ["ppd", "serve", "--host", "0.0.0.0", "--port", "8000"]
