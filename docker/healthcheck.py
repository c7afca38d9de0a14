"""Ask the service in this container whether it serves: exit 0 when it does, 1 when it does not.

For engines without gRPC probes of their own, as Docker is; Kubernetes asks the admin port itself.
"""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main() -> int:
    """Check the admin port that the service's own variables name."""
    port = os.environ.get("TELEWORLD_ADMIN_PORT") or os.environ.get("TELEWORLD_GATEWAY_ADMIN_PORT")
    if port is None:
        print("neither TELEWORLD_ADMIN_PORT nor TELEWORLD_GATEWAY_ADMIN_PORT is set", file=sys.stderr)
        return 1
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)
        except grpc.RpcError as error:
            print(error.code().name, file=sys.stderr)
            return 1
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    raise SystemExit(main())
