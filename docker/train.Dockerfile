# syntax=docker/dockerfile:1.9
# Training, alone or as a node of a Ray cluster. KubeRay brings the command; its probes call wget, and it starts Ray in a
# login shell, which knows the standard folders alone.
ARG BASE=teleworld/base:train-cuda
# hadolint ignore=DL3006
FROM ${BASE}
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && ln --symbolic /opt/venv/bin/ray /opt/venv/bin/python /usr/local/bin/
USER 10001:10001
HEALTHCHECK NONE
CMD ["teleworld.cli.main", "train", "--help"]
