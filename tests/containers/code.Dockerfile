# The code of a tree on the packages of an image that is there; the context is the tree.
ARG PACKAGES
FROM ${PACKAGES}
WORKDIR /app
USER 0
RUN rm -rf ppd_model service migrations
COPY ppd_model ppd_model
COPY service service
COPY migrations migrations
USER 10001:10001
