"""What the chart tells a service is what the service reads: names, types, ports, and the probe's question."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import PurePosixPath

import pytest
from pydantic_settings import BaseSettings

from services.decoder.settings import DecoderSettings
from services.gateway.settings import GatewaySettings
from services.planner.settings import PlannerSettings
from services.populator.settings import PopulatorSettings
from services.reconstructor.settings import ReconstructorSettings
from teleworld.cli import generate
from teleworld.rpc import health
from teleworld.rpc.channels import open_channel
from teleworld.rpc.server import Server, ServerConfig
from teleworld.scheduling.tasks import Pool
from teleworld.world.spec import spec_of
from tests.k8s.charts import EXAMPLES, MATRIX, ROOT, SERVICES, WORKERS, cases, environment, named, pods, render

SETTINGS: dict[str, type[BaseSettings]] = {
    "gateway": GatewaySettings,
    "planner": PlannerSettings,
    "populator": PopulatorSettings,
    "reconstructor": ReconstructorSettings,
    "decoder": DecoderSettings,
}


def own(service: str, variables: dict[str, object]) -> dict[str, object]:
    """The variables that are settings, by field."""
    prefix = SETTINGS[service].model_config["env_prefix"]
    ours = {name: value for name, value in variables.items() if name.startswith("TELEWORLD_")}
    assert all(name.startswith(prefix) for name in ours)
    return {name.removeprefix(prefix).lower(): value for name, value in ours.items()}


def test_every_variable_is_a_setting_of_its_service() -> None:
    unknown = {
        (service, field)
        for _, objects in cases()
        for service in SERVICES
        for field in own(service, environment(pods(objects)[service]))
        if field not in SETTINGS[service].model_fields
    }
    assert unknown == set()


@pytest.mark.parametrize("case", ["defaults", "static", "jwt-by-file", "weights-fetched", "gpu", "own-collector"])
def test_services_accept_their_environment(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real settings classes read the rendered values: types, ranges and choices fit."""
    parts = pods(render(*MATRIX[case]))
    for service in SERVICES:
        for name in [name for name in os.environ if name.startswith("TELEWORLD_")]:
            monkeypatch.delenv(name)
        variables = environment(parts[service])
        for name, value in variables.items():
            if isinstance(value, str):
                monkeypatch.setenv(name, value)
        settings = SETTINGS[service]()
        container = parts[service]["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert settings.port == ports["grpc"]
        assert settings.admin_port == ports["admin"]
        assert settings.host == "0.0.0.0"
        if service == "gateway":
            assert settings.scaler_port == ports["scaler"]
            assert settings.discovery == ("static" if case == "static" else "kubernetes")


def test_more_settings_reach_the_service_as_they_were_written() -> None:
    values = (
        "gateway.settings.chunk_retention_bytes=67108864",
        "gateway.settings.lease_seconds=7.5",
        "decoder.settings.queue=3",
    )
    parts = pods(render(*values))
    gateway = environment(parts["gateway"])
    assert gateway["TELEWORLD_GATEWAY_CHUNK_RETENTION_BYTES"] == "67108864"
    assert gateway["TELEWORLD_GATEWAY_LEASE_SECONDS"] == "7.5"
    assert environment(parts["decoder"])["TELEWORLD_QUEUE"] == "3"


def test_the_module_that_is_started_is_the_service() -> None:
    for service in SERVICES:
        (module,) = pods(render())[service]["spec"]["containers"][0]["args"]
        assert importlib.util.find_spec(f"{module}.__main__") is not None


async def test_the_probes_questions_are_answered_on_the_admin_port() -> None:
    """Readiness follows the process's state; liveness does not: what waits or drains must not be restarted for it."""
    worker, gateway = (pods(render())[service]["spec"]["containers"][0] for service in ("planner", "gateway"))
    asked = {
        probe: worker[f"{probe}Probe"]["grpc"].get("service", "") for probe in ("startup", "readiness", "liveness")
    }
    assert asked == {"startup": "", "readiness": "", "liveness": health.LIVENESS}
    assert gateway["startupProbe"]["grpc"]["service"] == gateway["livenessProbe"]["grpc"]["service"] == health.LIVENESS
    assert "service" not in gateway["readinessProbe"]["grpc"]
    server = Server("planner", ServerConfig(admin_port=0))
    await server.start()
    async with open_channel(server.admin_address) as channel:

        async def answers() -> tuple[bool, bool]:
            ready, alive = asked["readiness"], asked["liveness"]
            return await health.check(channel, ready, 5.0), await health.check(channel, alive, 5.0)

        assert await answers() == (False, True)
        server.ready()
        assert await answers() == (True, True)
        server.health.close()
        assert await answers() == (False, True)
    await server.drain()


def test_the_gateway_is_told_where_its_workers_are() -> None:
    objects = render()
    told = environment(pods(objects)["gateway"])
    for pool in Pool:
        service = named(objects, "Service", pool.value)
        host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
        assert (
            told[f"TELEWORLD_GATEWAY_{pool.value.upper()}_ADDRESSES"] == f"{host}:{service['spec']['ports'][0]['port']}"
        )
    assert {pool.value for pool in Pool} == set(WORKERS)


def test_static_discovery_names_every_pod() -> None:
    told = environment(pods(render(*MATRIX["static"]))["gateway"])["TELEWORLD_GATEWAY_POPULATOR_ADDRESSES"].split(",")
    assert told == [
        f"walk-teleworld-populator-{index}.walk-teleworld-populator.worlds.svc.cluster.local:7310" for index in range(3)
    ]


def test_the_lease_is_the_one_that_the_gateway_may_hold() -> None:
    objects = render()
    (rule,) = (rule for rule in named(objects, "Role", "gateway")["rules"] if "resourceNames" in rule)
    assert rule["resourceNames"] == [environment(pods(objects)["gateway"])["TELEWORLD_GATEWAY_LEASE_NAME"]]


def test_a_gpu_is_computed_on() -> None:
    parts = pods(render(*MATRIX["gpu"]))
    assert {environment(parts[worker])["TELEWORLD_DEVICE"] for worker in WORKERS} == {"cuda"}
    assert environment(pods(render())["planner"])["TELEWORLD_DEVICE"] == "cpu"


@pytest.mark.parametrize("example", [None, *EXAMPLES])
def test_helm_test_is_a_command_that_exists(example: str | None) -> None:
    container = pods(render(example=example))["test"]["spec"]["containers"][0]
    module, command, *arguments = container["args"]
    assert importlib.util.find_spec(module) is not None
    assert command == "generate"
    parser = argparse.ArgumentParser(exit_on_error=False)
    generate.add_arguments(parser)
    options = parser.parse_args(arguments)
    controls, chunks = generate.script_to_controls(options.keys, spec_of("nano"), options.seconds)
    assert controls and chunks > 1
    assert (ROOT / PurePosixPath(options.image).relative_to("/app")).is_file()
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert all(
        any(PurePosixPath(path).is_relative_to(folder) for folder in writable) for path in (options.out, options.report)
    )


def test_a_memory_outlives_its_world() -> None:
    told = environment(pods(render("gateway.settings.world_ttl_seconds=1209600"))["reconstructor"])
    assert int(told["TELEWORLD_MEMORY_TTL_SECONDS"]) == 1209600 + 86400
    default = ReconstructorSettings.model_fields["memory_ttl_seconds"].default
    assert default > GatewaySettings.model_fields["world_ttl_seconds"].default
    assert "TELEWORLD_MEMORY_TTL_SECONDS" not in environment(pods(render())["reconstructor"])
