"""What no pod of ours may lack, whatever the values are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.k8s.charts import (
    EXAMPLES,
    MATRIX,
    SERVICES,
    WORKERS,
    Object,
    cases,
    component,
    named,
    of_kind,
    pods,
    render,
)

FULL_CAPABILITIES = {"drop": ["ALL"]}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3, "": 1}


def amount(text: Any) -> float:
    """A quantity as a number."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", str(text)).groups()
    return float(number) * UNITS[unit]


def all_pods() -> Iterator[tuple[str, Object]]:
    for name, objects in cases():
        for part, pod in pods(objects).items():
            yield f"{name}/{part}", pod


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def test_the_matrix_is_not_empty() -> None:
    assert len(list(all_pods())) > 150


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_service_has_what_a_service_has(example: str) -> None:
    objects = render(example=example)
    for service in SERVICES:
        for kind in ("Service", "ServiceAccount", "NetworkPolicy"):
            assert named(objects, kind, service)
        assert (
            len(
                [
                    each
                    for each in of_kind(objects, "Deployment", "StatefulSet")
                    if each["metadata"]["name"].endswith(service)
                ]
            )
            == 1
        )


def test_pods_are_confined() -> None:
    for name, pod in all_pods():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys(), name
        assert not [volume for volume in pod["spec"].get("volumes", []) if "hostPath" in volume], name
        assert pod["spec"]["enableServiceLinks"] is False, name


def test_containers_are_confined_and_bounded() -> None:
    for name, pod in all_pods():
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["privileged"] is False, name
            assert context["capabilities"] == FULL_CAPABILITIES, name
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            for resource in ("cpu", "memory"):
                assert 0 < amount(requests[resource]) <= amount(limits[resource]), name
            assert container["imagePullPolicy"], name
            assert ":" in container["image"].split("/")[-1] and not container["image"].endswith(":latest"), name


def test_the_root_is_read_only_but_on_gpu_pods_that_say_otherwise() -> None:
    for name, pod in all_pods():
        for container in containers(pod):
            gpus = int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
            if not container["securityContext"]["readOnlyRootFilesystem"]:
                assert gpus > 0, name
    assert (
        pods(render("planner.readOnlyRootFilesystem=false"))["planner"]["spec"]["containers"][0]["securityContext"][
            "readOnlyRootFilesystem"
        ]
        is False
    )


def test_writable_folders_are_volumes_with_a_size() -> None:
    for name, pod in all_pods():
        for volume in pod["spec"].get("volumes", []):
            if "emptyDir" in volume:
                assert amount(volume["emptyDir"]["sizeLimit"]) > 0, name
        if name.split("/")[1] in SERVICES:
            mounted = {mount["mountPath"]: mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
            assert {"/tmp", "/dev/shm", "/var/cache/teleworld"} <= mounted.keys(), name
            (shm,) = (volume for volume in pod["spec"].get("volumes", []) if volume["name"] == mounted["/dev/shm"])
            assert shm["emptyDir"]["medium"] == "Memory", name
            memory = pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
            assert amount(shm["emptyDir"]["sizeLimit"]) < amount(memory), (
                f"{name}: /dev/shm counts as memory of the pod"
            )


def test_what_is_mounted_exists_and_what_exists_is_mounted() -> None:
    for name, pod in all_pods():
        volumes = [volume["name"] for volume in pod["spec"].get("volumes", [])]
        assert len(volumes) == len(set(volumes)), name
        mounts = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        claims = {"data"} if name.split("/")[1] == "redis" and "data" not in volumes else set()
        assert mounts - claims == set(volumes), name


def test_secrets_and_config_arrive_anew_without_a_restart() -> None:
    """A file that is mounted by subPath is never renewed."""
    for name, pod in all_pods():
        renewed = {
            volume["name"] for volume in pod["spec"].get("volumes", []) if volume.keys() & {"secret", "configMap"}
        }
        for container in containers(pod):
            assert not [
                mount for mount in container["volumeMounts"] if mount["name"] in renewed and "subPath" in mount
            ], name


def test_services_are_probed_by_grpc_on_the_admin_port() -> None:
    for name, pod in all_pods():
        part = name.split("/")[1]
        if part == "test":
            continue
        container = pod["spec"]["containers"][0]
        assert set(PROBES) <= container.keys(), name
        if part in SERVICES:
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert {container[probe]["grpc"]["port"] for probe in PROBES} == {ports["admin"]}, name
            assert ports["admin"] != ports["grpc"], name


def test_the_startup_probe_allows_the_whole_start() -> None:
    for seconds in (2, 61, 900):
        probe = pods(render(f"planner.startupSeconds={seconds}"))["planner"]["spec"]["containers"][0]["startupProbe"]
        assert seconds <= probe["periodSeconds"] * probe["failureThreshold"] < seconds + 2


def test_a_hung_worker_is_restarted_later_than_it_leaves_its_service() -> None:
    container = pods(render())["populator"]["spec"]["containers"][0]
    ready, alive = (container[probe]["periodSeconds"] * container[probe]["failureThreshold"] for probe in PROBES[1:])
    assert ready < alive


@pytest.mark.parametrize(("stop", "drain", "margin"), [(5, 10, 10), (0, 60, 1), (15, 600, 30)])
def test_the_grace_period_covers_pre_stop_and_drain(stop: int, drain: int, margin: int) -> None:
    pod = pods(
        render(
            f"decoder.preStopSeconds={stop}", f"decoder.drainSeconds={drain}", f"decoder.graceMarginSeconds={margin}"
        )
    )["decoder"]
    container = pod["spec"]["containers"][0]
    settings = {each["name"]: each.get("value") for each in container["env"]}
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == stop
    assert settings["TELEWORLD_DRAIN_SECONDS"] == str(drain)
    assert pod["spec"]["terminationGracePeriodSeconds"] == stop + drain + margin


def test_pre_stop_is_what_the_version_knows() -> None:
    """Kubernetes 1.29 has the field `sleep` behind a gate that is shut: the pod would be refused."""
    old = pods(render(kubernetes="1.29"))["planner"]["spec"]["containers"][0]["lifecycle"]["preStop"]
    assert old == {"exec": {"command": ["python", "-c", "import time; time.sleep(5)"]}}
    assert pods(render(kubernetes="1.30"))["planner"]["spec"]["containers"][0]["lifecycle"]["preStop"] == {
        "sleep": {"seconds": 5}
    }


def test_disruption_budgets_let_nodes_drain() -> None:
    for name, objects in cases():
        for budget in of_kind(objects, "PodDisruptionBudget"):
            assert budget["spec"]["maxUnavailable"] != 0, name
    budgets = {
        each["metadata"]["name"].rpartition("-")[2] for each in of_kind(render(example="fleet"), "PodDisruptionBudget")
    }
    assert set(SERVICES) <= budgets


def test_accounts_are_separate_and_only_the_gateway_has_a_token() -> None:
    for name, objects in cases():
        if name == "bare":
            continue
        parts = {part: pod for part, pod in pods(objects).items() if part != "test" and not part.endswith("-previous")}
        accounts = {part: pod["spec"].get("serviceAccountName") for part, pod in parts.items()}
        assert len(set(accounts.values())) == len(accounts), name
        tokens = {part for part, pod in pods(objects).items() if pod["spec"]["automountServiceAccountToken"]}
        static = any(each["kind"] == "StatefulSet" and each["metadata"]["name"].endswith("planner") for each in objects)
        assert tokens == (set() if static else {"gateway"}), name


def test_the_gateway_may_do_what_it_does_and_nothing_else() -> None:
    for name, objects in cases():
        assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding"), name
        for role in of_kind(objects, "Role"):
            granted = {
                (resource, verb, tuple(rule.get("resourceNames", ())))
                for rule in role["rules"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
            lease = (role["metadata"]["name"],)
            pools = ("populator", "decoder") if name == "sized-by-the-gateway" else ()
            sized = tuple(f"walk-teleworld-{pool}" for pool in pools)
            assert granted == {
                *(("endpointslices", verb, ()) for verb in ("get", "list", "watch")),
                ("leases", "create", ()),
                *(("leases", verb, lease) for verb in ("get", "update")),
                *(("deployments/scale", verb, sized) for verb in ("get", "update") if sized),
            }, name


def test_gpu_pods_get_a_gpu_the_image_and_the_toleration() -> None:
    objects = render(*MATRIX["gpu"])
    for worker in WORKERS:
        pod = pods(objects)[worker]["spec"]
        resources = pod["containers"][0]["resources"]
        assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == 1
        assert pod["containers"][0]["image"].endswith("-cuda")
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
        assert pod["runtimeClassName"] == "nvidia"
    gateway = pods(objects)["gateway"]["spec"]
    assert not gateway["containers"][0]["image"].endswith("-cuda")
    assert "nvidia.com/gpu" not in gateway["containers"][0]["resources"]["limits"]


def test_one_node_of_eight_gpus_is_used_whole() -> None:
    used = 0
    for each in of_kind(render(example="node"), "Deployment"):
        limits = each["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        used += each["spec"]["replicas"] * int(limits.get("nvidia.com/gpu", 0))
        if "nvidia.com/gpu" in limits:
            assert each["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}, "no GPU is spare"
    assert used == 8


def test_scheduling_values_reach_the_pod() -> None:
    pod = pods(
        render(
            "populator.nodeSelector.pool=gpu",
            "populator.tolerations[0].key=spot",
            "populator.tolerations[0].operator=Exists",
            "populator.priorityClassName=high",
            "populator.topologySpread.zones=DoNotSchedule",
        )
    )["populator"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [{"key": "spot", "operator": "Exists"}]
    assert pod["priorityClassName"] == "high"
    spread = {each["topologyKey"]: each["whenUnsatisfiable"] for each in pod["topologySpreadConstraints"]}
    assert spread == {"topology.kubernetes.io/zone": "DoNotSchedule", "kubernetes.io/hostname": "ScheduleAnyway"}
    assert pods(render("priorityClass.create=true"))["decoder"]["spec"]["priorityClassName"] == "walk-teleworld"
    own = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    assert (
        pods(render("decoder.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution={}"))["decoder"][
            "spec"
        ]["affinity"].keys()
        == own.keys()
    )


def test_selectors_find_exactly_their_own_pods() -> None:
    for name, objects in cases():
        labels = {part: pod["metadata"]["labels"] for part, pod in pods(objects).items()}
        for each in of_kind(objects, "Service", "Deployment", "StatefulSet", "PodDisruptionBudget"):
            selector = each["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            found = {part for part, has in labels.items() if selector.items() <= has.items()}
            place, own = f"{name}/{each['metadata']['name']}", component(each)
            if each["kind"] in ("Deployment", "StatefulSet"):
                assert found == {own + "-previous" * place.endswith("-previous")}, place
            else:
                assert {part.removesuffix("-previous") for part in found} == {own}, place


def test_workers_are_found_without_a_balancer_in_between() -> None:
    objects = render()
    for worker in WORKERS:
        service = named(objects, "Service", worker)["spec"]
        assert service["clusterIP"] == "None"
        assert {port["name"] for port in service["ports"]} == {"grpc"}, "the admin port is in no Service"
    static = render(*MATRIX["static"])
    sets = {each["metadata"]["name"]: each["spec"] for each in of_kind(static, "StatefulSet")}
    for worker in WORKERS:
        assert sets[f"walk-teleworld-{worker}"]["serviceName"] == f"walk-teleworld-{worker}"
        assert named(static, "Service", worker)["spec"]["publishNotReadyAddresses"] is True


def test_a_sidecar_shares_the_memory_and_may_be_let_out() -> None:
    objects = render(*MATRIX["triton-beside"])
    decoder, triton = pods(objects)["decoder"]["spec"]["containers"]
    shared = [
        {mount["mountPath"]: mount["name"] for mount in each["volumeMounts"]}["/dev/shm"] for each in (decoder, triton)
    ]
    assert shared == ["shm", "shm"]
    assert {"ports": [{"port": 9999}]} in named(objects, "NetworkPolicy", "decoder")["spec"]["egress"]
    assert len(pods(objects)["planner"]["spec"]["containers"]) == 1


def test_a_services_own_values_win_even_when_they_are_empty() -> None:
    node = pods(render(example="node"))
    assert node["planner"]["spec"]["nodeSelector"]
    assert "nodeSelector" not in node["gateway"]["spec"], "gateways need no GPU node"
    values = ("defaults.nodeSelector.a=x", "planner.nodeSelector.b=y", "defaults.gpu.count=1", "decoder.gpu.count=0")
    several = pods(render(*values, "defaults.tolerations[0].key=spot", "decoder.topologySpread.zones="))
    assert several["planner"]["spec"]["nodeSelector"] == {"a": "x", "b": "y"}
    assert "tolerations" in several["planner"]["spec"]
    assert len(several["planner"]["spec"]["topologySpreadConstraints"]) == 2
    assert len(several["decoder"]["spec"]["topologySpreadConstraints"]) == 1
    assert not several["decoder"]["spec"]["containers"][0]["image"].endswith("-cuda")
