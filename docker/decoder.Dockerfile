# syntax=docker/dockerfile:1.9
# The decoder: latents to pixels, super-resolution, H.264.
ARG BASE=teleworld/base:cpu
# hadolint ignore=DL3006
FROM ${BASE}
COPY services/decoder /app/services/decoder
ENV TELEWORLD_HOST=0.0.0.0 \
    TELEWORLD_PORT=7330 \
    TELEWORLD_ADMIN_PORT=7331
EXPOSE 7330 7331
USER 10001:10001
CMD ["services.decoder"]
