"""TLS between services, and towards clients: credentials from files that may change in place, and the names in certificates.

Files are mounted by whoever issues them (a Secret, cert-manager) and replaced before they expire. A server looks at them at
each handshake; a client reads them for each channel that it opens, and every channel of ours is opened anew after its peer
was lost.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from teleworld.world.errors import InvalidInput

_SUBJECTS = ("x509_subject_alternative_name", "x509_common_name")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: a certificate chain, its private key, and the authority that signs our peers' certificates."""

    certificate: Path
    key: Path
    authority: Path

    @classmethod
    def of(cls, certificate: str, key: str, authority: str) -> TlsFiles | None:
        """From settings; None if all are empty. Raises InvalidInput naming the one that is missing or cannot be read."""
        given = {"tls_certificate": certificate, "tls_key": key, "tls_authority": authority}
        if not any(given.values()):
            return None
        for field, path in given.items():
            if not path:
                raise InvalidInput(field, "must be set where TLS is used")
            if not Path(path).is_file():
                raise InvalidInput(field, f"{path} is not a file")
        return cls(Path(certificate), Path(key), Path(authority))

    @property
    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Changes when a file does."""
        return tuple((stat.st_mtime_ns, stat.st_size) for stat in (path.stat() for path in self._paths))

    def read(self) -> tuple[bytes, bytes, bytes]:
        """(certificate chain, private key, authority)."""
        certificate, key, authority = (path.read_bytes() for path in self._paths)
        return certificate, key, authority

    @property
    def _paths(self) -> tuple[Path, Path, Path]:
        return self.certificate, self.key, self.authority


def server_credentials(files: TlsFiles, *, known_clients: bool) -> grpc.ServerCredentials:
    """Credentials that follow the files. `known_clients`: peers must show a certificate that the authority signed."""
    lock = threading.Lock()
    stamp = files.stamp

    def configuration() -> Any:
        certificate, key, authority = files.read()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority if known_clients else None)

    def fetch() -> Any:
        nonlocal stamp
        with lock:
            try:
                if (now := files.stamp) == stamp:
                    return None
                fresh = configuration()
            except OSError as error:  # the files are being replaced; the old ones still hold
                _log.warning("certificates cannot be read", extra={"reason": str(error)})
                return None
            stamp = now
            _log.info("certificates were read anew")
            return fresh

    return grpc.dynamic_ssl_server_credentials(configuration(), fetch, require_client_authentication=known_clients)


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials of a service that shows its own certificate."""
    certificate, key, authority = files.read()
    return grpc.ssl_channel_credentials(authority, key, certificate)


def peer_names(context: grpc.aio.ServicerContext) -> frozenset[str]:
    """The names that the peer's certificate proves; none without one."""
    proven = context.auth_context()
    return frozenset(name.decode() for subject in _SUBJECTS for name in proven.get(subject, ()))


def is_known(names: frozenset[str], allowed: Sequence[str]) -> bool:
    """Whether a certificate's name is one of `allowed`: a plain name, or the service account of a SPIFFE id
    (`spiffe://<trust domain>/ns/<namespace>/sa/<account>`) that is that name or ends with `-<name>`."""
    for name in names:
        account = name.rpartition("/sa/")[2] if name.startswith("spiffe://") else None
        for one in allowed:
            if name == one or (account is not None and (account == one or account.endswith(f"-{one}"))):
                return True
    return False


def is_loopback(host: str) -> bool:
    """Whether an interface can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
