# Older code on today's packages; the context is its tree.
ARG NOW
FROM ${NOW}
WORKDIR /app
USER 0
RUN rm -rf ppd_model service migrations
COPY ppd_model ppd_model
COPY service service
COPY migrations migrations
USER 10001:10001
