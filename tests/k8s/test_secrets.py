"""TLS, keys, tokens and the password of Redis: where they come from, and that they never stand in the open."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from tests.k8s.charts import MATRIX, SERVICES, WORKERS, Object, cases, environment, named, of_kind, pods, render

TLS_FIELDS = {"CERTIFICATE": "tls.crt", "KEY": "tls.key", "AUTHORITY": "ca.crt"}


def volume(pod: Object, name: str) -> Object:
    (found,) = (each for each in pod["spec"]["volumes"] if each["name"] == name)
    return found


def prefix(service: str) -> str:
    return "TELEWORLD_GATEWAY_" if service == "gateway" else "TELEWORLD_"


def test_no_secret_is_made_by_the_chart() -> None:
    """What the chart would hold, Helm would keep in plain sight in its release."""
    for name, objects in cases():
        assert not of_kind(objects, "Secret"), name


@pytest.mark.parametrize("case", ["defaults", "own-issuer", "own-secrets"])
def test_every_service_has_its_own_certificate(case: str) -> None:
    objects = render(*MATRIX[case])
    secrets = set()
    for service, pod in ((service, pods(objects)[service]) for service in SERVICES):
        mount = next(each for each in pod["spec"]["containers"][0]["volumeMounts"] if each["name"] == "tls")
        told = environment(pod)
        for field, file in TLS_FIELDS.items():
            assert told[f"{prefix(service)}TLS_{field}"] == f"{mount['mountPath']}/{file}"
        secret = volume(pod, "tls")["secret"]
        assert secret["defaultMode"] == 0o440, "readable for the group that the pod runs with"
        secrets.add(secret["secretName"])
    assert len(secrets) == len(SERVICES)
    if case == "own-secrets":
        assert "front-door" in secrets
        assert not of_kind(objects, "Certificate")
    else:
        issued = {
            each["spec"]["secretName"] for each in of_kind(objects, "Certificate") if not each["spec"].get("isCA")
        }
        assert issued == secrets


def test_certificates_say_who_a_service_is() -> None:
    objects = render("tls.publicNames[0]=worlds.example.com")
    for service in SERVICES:
        spec = named(objects, "Certificate", service)["spec"]
        account = pods(objects)[service]["spec"]["serviceAccountName"]
        assert spec["uris"] == [f"spiffe://teleworld/ns/worlds/sa/{account}"]
        assert spec["commonName"] == service
        assert {"server auth", "client auth"} <= set(spec["usages"])
        assert f"walk-teleworld-{service}.worlds.svc.cluster.local" in spec["dnsNames"]
        assert spec["privateKey"]["rotationPolicy"] == "Always"
    names = named(objects, "Certificate", "gateway")["spec"]["dnsNames"]
    assert {"worlds.example.com", "walk-teleworld-gateway-scaler.worlds.svc.cluster.local"} <= set(names)


def test_the_releases_own_authority_signs_unless_another_is_named() -> None:
    objects = render()
    (authority,) = (each for each in of_kind(objects, "Certificate") if each["spec"].get("isCA"))
    (issuer,) = (each for each in of_kind(objects, "Issuer") if "ca" in each["spec"])
    assert issuer["spec"]["ca"]["secretName"] == authority["spec"]["secretName"]
    assert named(objects, "Certificate", "planner")["spec"]["issuerRef"]["name"] == issuer["metadata"]["name"]
    other = render(*MATRIX["own-issuer"])
    assert not of_kind(other, "Issuer")
    assert named(other, "Certificate", "planner")["spec"]["issuerRef"] == {
        "name": "platform", "kind": "ClusterIssuer", "group": "cert-manager.io",
    }  # fmt: skip


def test_insecure_is_asked_for_by_name_and_is_whole() -> None:
    objects = render(*MATRIX["insecure"])
    for service in SERVICES:
        pod = pods(objects)[service]
        assert not [name for name in environment(pod) if "_TLS_" in name]
        assert "tls" not in [each["name"] for each in pod["spec"]["volumes"]]
    assert not of_kind(objects, "Certificate", "Issuer")


def test_keys_and_key_sets_are_mounted_at_the_gateway_alone() -> None:
    objects = render(*MATRIX["jwt-by-file"])
    gateway = pods(objects)["gateway"]
    told = environment(gateway)
    assert told["TELEWORLD_GATEWAY_API_KEYS_FILE"] == "/etc/teleworld/api-keys/keys.yaml"
    assert told["TELEWORLD_GATEWAY_JWKS"] == "/etc/teleworld/jwks/jwks.json"
    assert told["TELEWORLD_GATEWAY_ISSUER"] == "https://login.example"
    assert volume(gateway, "api-keys")["secret"]["secretName"] == "teleworld-api-keys"
    for worker in WORKERS:
        assert not {"api-keys", "jwks"} & {each["name"] for each in pods(objects)[worker]["spec"]["volumes"]}
    by_url = environment(pods(render(*MATRIX["jwt-by-url"]))["gateway"])
    assert by_url["TELEWORLD_GATEWAY_JWKS"] == "https://login.example/keys"
    assert "TELEWORLD_GATEWAY_API_KEYS_FILE" not in by_url


def test_the_url_of_redis_comes_whole_from_a_secret() -> None:
    objects = render(*MATRIX["redis-secret"])
    for service in ("gateway", "planner", "reconstructor"):
        url = environment(pods(objects)[service])[f"{prefix(service)}REDIS_URL"]
        assert url == {"secretKeyRef": {"name": "redis-url", "key": "url"}}
    for service in ("populator", "decoder"):
        assert not [name for name in environment(pods(objects)[service]) if "REDIS" in name]


def test_a_composed_url_is_one_that_the_client_understands() -> None:
    pod = pods(render(*MATRIX["redis-user"]))["reconstructor"]
    told = environment(pod)
    names = [each["name"] for each in pod["spec"]["containers"][0]["env"]]
    assert names.index("REDIS_PASSWORD") < names.index("TELEWORLD_REDIS_URL"), (
        "only what stands before can be referred to"
    )
    assert told["REDIS_PASSWORD"] == {"secretKeyRef": {"name": "redis", "key": "password"}}
    url = told["TELEWORLD_REDIS_URL"].replace("$(REDIS_PASSWORD)", "p%40ss")
    options = Redis.from_url(url).connection_pool.connection_kwargs
    assert (options["host"], options["port"], options["db"]) == ("redis", 6379, 0)
    assert (options["username"], options["password"]) == ("teleworld", "p@ss")
    assert options["ssl_ca_certs"] == "/etc/teleworld/redis/ca.crt"
    assert volume(pod, "redis")["secret"]["secretName"] == "redis-authority"
    plain = environment(pods(render(*MATRIX["redis-plain"]))["gateway"])["TELEWORLD_GATEWAY_REDIS_URL"]
    assert plain == "redis://redis:6379/0"


def test_the_development_redis_keeps_what_it_acknowledged() -> None:
    kept = pods(render(*MATRIX["development-redis-kept"]))["redis"]["spec"]["containers"][0]["args"]
    assert kept[kept.index("--appendonly") + 1] == "yes"
    assert kept[kept.index("--appendfsync") + 1] == "always"
    assert kept[kept.index("--maxmemory-policy") + 1] == "noeviction"
    claims = named(render(*MATRIX["development-redis-kept"]), "StatefulSet", "redis")["spec"]["volumeClaimTemplates"]
    assert claims[0]["spec"]["resources"]["requests"]["storage"] == "5Gi"


def test_the_test_pod_holds_no_key() -> None:
    pod = pods(render("tests.apiKeySecret=walker"))["test"]
    assert volume(pod, "tls")["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
    assert environment(pod)["TELEWORLD_API_KEY"] == {"secretKeyRef": {"name": "walker", "key": "key"}}
