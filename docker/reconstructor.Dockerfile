# syntax=docker/dockerfile:1.9
# The reconstructor: the 4D memory in Redis, guidance out, key frames in.
ARG BASE=teleworld/base:cpu
# hadolint ignore=DL3006
FROM ${BASE}
COPY services/reconstructor /app/services/reconstructor
ENV TELEWORLD_HOST=0.0.0.0 \
    TELEWORLD_PORT=7320 \
    TELEWORLD_ADMIN_PORT=7321
EXPOSE 7320 7321
USER 10001:10001
CMD ["services.reconstructor"]
