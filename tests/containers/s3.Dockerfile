# A stand-in for the S3 gateway's image, under the name of its program; the context is tests/.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends wget
COPY s3_server.py /opt/tests/
COPY containers/s3_gateway.py /opt/tests/containers/
RUN printf '#!/bin/sh\ncd /opt && exec python -m tests.containers.s3_gateway "$@"\n' \
      > /usr/local/bin/versitygw && chmod 0755 /usr/local/bin/versitygw
