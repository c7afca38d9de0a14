"""The way to the API server: from inside a pod by its service account, else by the kubeconfig."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from teleworld.world.errors import InvalidInput

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# What talking to the API server may raise when it is away, restarting or overloaded.
AWAY = (ApiException, aiohttp.ClientError, TimeoutError, OSError)


async def connect(server: str = "") -> client.ApiClient:
    """A client. `server` is an API server without authentication, such as a `kubectl proxy`; empty finds the cluster.

    Raises InvalidInput if there is neither a service account nor a kubeconfig.
    """
    if server:
        return client.ApiClient(client.Configuration(host=server))
    configuration = client.Configuration()
    try:
        if (SERVICE_ACCOUNT / "token").exists():
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise InvalidInput("discovery", f"kubernetes is not within reach: {error}") from error
    return client.ApiClient(configuration)


def own_namespace() -> str:
    """The namespace of this pod; `default` outside of a cluster."""
    file = SERVICE_ACCOUNT / "namespace"
    return file.read_text(encoding="utf-8").strip() if file.exists() else "default"
