# A stand-in for Redis's image, with its user ids; the context is tests/.
ARG BASE
FROM ${BASE}
RUN groupadd --gid 1000 redis && useradd --uid 999 --gid 1000 redis \
    && apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server
