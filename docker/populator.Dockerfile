# syntax=docker/dockerfile:1.9
# The populator: the latents between key frames.
ARG BASE=teleworld/base:cpu
# hadolint ignore=DL3006
FROM ${BASE}
COPY services/populator /app/services/populator
ENV TELEWORLD_HOST=0.0.0.0 \
    TELEWORLD_PORT=7310 \
    TELEWORLD_ADMIN_PORT=7311
EXPOSE 7310 7311
USER 10001:10001
CMD ["services.populator"]
