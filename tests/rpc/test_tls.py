"""TLS on loopback with certificates of our own: who may call, who is refused, and files that change in place."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.common.desk import Desk
from services.planner.servicer import register
from teleworld.rpc.channels import open_channel
from teleworld.rpc.server import Server, ServerConfig
from teleworld.rpc.tls import TlsFiles, is_known
from teleworld.rpc.workers import PlannerClient
from teleworld.world.errors import InvalidInput, PermissionDenied, Unavailable
from tests.services.gateway.cores import TinyPlanner
from tests.services.gateway.mesh import WEIGHTS


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "ca") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key, [], is_authority=True)

    def issue(self, folder: Path, name: str, *more: x509.GeneralName) -> TlsFiles:
        """Files of a service called `name`."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, [x509.DNSName(name), *more])
        files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for path, content in (
            (files.key, secret),
            (files.authority, self.certificate.public_bytes(serialization.Encoding.PEM)),
            (files.certificate, certificate.public_bytes(serialization.Encoding.PEM)),
        ):
            path.with_suffix(".new").write_bytes(content)
            os.replace(path.with_suffix(".new"), path)
        return files

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName],
        is_authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


async def planner(files: TlsFiles | None, callers: tuple[str, ...] = ("gateway",), host: str = "127.0.0.1") -> Server:
    desk: Desk[TinyPlanner] = Desk("planner", 8)
    server = Server("planner", ServerConfig(host=host, tls=files, callers=callers, drain_seconds=0.5))
    register(server, desk)
    server.on_drain(desk.close)
    await server.start()
    await desk.open(lambda: (WEIGHTS, TinyPlanner()))
    server.ready()
    return server


async def describe(server: Server, files: TlsFiles | None, peer: str = "planner") -> str:
    client = PlannerClient(server.address, files, peer)
    try:
        return (await client.describe(5.0)).name
    finally:
        await client.close()


async def test_only_the_gateway_may_call_a_worker(tmp_path: Path) -> None:
    ca, stranger = Authority(), Authority("elsewhere")
    server = await planner(ca.issue(tmp_path / "planner", "planner"))
    gateway = ca.issue(tmp_path / "gateway", "gateway")
    try:
        assert await describe(server, gateway) == WEIGHTS.name
        with pytest.raises(PermissionDenied, match="populator may not call"):
            await describe(server, ca.issue(tmp_path / "populator", "populator"))
        with pytest.raises(Unavailable):
            await describe(server, None)
        forged = stranger.issue(tmp_path / "forged", "gateway")
        with pytest.raises(Unavailable):
            await describe(server, TlsFiles(forged.certificate, forged.key, gateway.authority))
        with pytest.raises(Unavailable):
            await describe(server, gateway, peer="decoder")  # a worker that cannot prove to be of the pool
    finally:
        await server.drain()


async def test_certificates_are_changed_in_place(tmp_path: Path) -> None:
    old, new = Authority("old"), Authority("new")
    files = old.issue(tmp_path / "planner", "planner")
    server = await planner(files)
    try:
        assert await describe(server, old.issue(tmp_path / "gateway", "gateway"))
        new.issue(tmp_path / "planner", "planner")
        with pytest.raises(Unavailable):
            await describe(
                server, TlsFiles(*(tmp_path / "gateway" / name for name in ("tls.crt", "tls.key", "ca.crt")))
            )
        assert await describe(server, new.issue(tmp_path / "gateway", "gateway")) == WEIGHTS.name
    finally:
        await server.drain()


async def test_probes_stay_plaintext_on_the_admin_port(tmp_path: Path) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    files = Authority().issue(tmp_path, "planner")
    server = Server("planner", ServerConfig(tls=files, callers=("gateway",), admin_port=0))
    await server.start()
    server.ready()
    try:
        async with open_channel(server.admin_address) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        await server.drain()


async def test_plaintext_beyond_loopback_must_be_asked_for_by_name() -> None:
    with pytest.raises(InvalidInput, match="host"):
        await Server("planner", ServerConfig(host="0.0.0.0")).start()
    server = Server("planner", ServerConfig(host="0.0.0.0", insecure=True))
    await server.start()
    await server.drain()


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("gateway", True),
        ("spiffe://cluster.local/ns/prod/sa/rel-gateway", True),
        ("spiffe://cluster.local/ns/prod/sa/gateway", True),
        ("spiffe://cluster.local/ns/prod/sa/gateway-evil", False),
        ("evil-gateway", False),
        ("rel-gateway.evil.example", False),
        ("planner", False),
    ],
)
def test_names(name: str, known: bool) -> None:
    assert is_known(frozenset({name}), ("gateway",)) is known


def test_half_a_configuration_is_named(tmp_path: Path) -> None:
    assert TlsFiles.of("", "", "") is None
    here = tmp_path / "x"
    here.write_text("x")
    with pytest.raises(InvalidInput, match="tls_key"):
        TlsFiles.of(str(here), "", str(here))
    with pytest.raises(InvalidInput, match="tls_authority"):
        TlsFiles.of(str(here), str(here), str(tmp_path / "away"))
