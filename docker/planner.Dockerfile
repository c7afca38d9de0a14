# syntax=docker/dockerfile:1.9
# The planner: key latents of a segment, key pictures, the next prefix.
ARG BASE=teleworld/base:cpu
# hadolint ignore=DL3006
FROM ${BASE}
COPY services/planner /app/services/planner
ENV TELEWORLD_HOST=0.0.0.0 \
    TELEWORLD_PORT=7300 \
    TELEWORLD_ADMIN_PORT=7301
EXPOSE 7300 7301
USER 10001:10001
CMD ["services.planner"]
