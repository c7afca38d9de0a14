# syntax=docker/dockerfile:1.9
# The gateway: worlds, streams and the schedule. It has the command line and the start pictures too, for `helm test`.
ARG BASE=teleworld/base:cpu
# hadolint ignore=DL3006
FROM ${BASE}
COPY services/gateway /app/services/gateway
COPY examples/start /app/examples/start
ENV TELEWORLD_GATEWAY_HOST=0.0.0.0 \
    TELEWORLD_GATEWAY_PORT=7400 \
    TELEWORLD_GATEWAY_ADMIN_PORT=7401
EXPOSE 7400 7401 7402
USER 10001:10001
CMD ["services.gateway"]
