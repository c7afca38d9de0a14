"""Weights in and out: safetensors only, checked before use, and pinned by digest.

A checkpoint is somebody else's file. Nothing here unpickles: a `.pt`, `.pth` or `.bin` is refused by name and a pickle
under another name by its first bytes. A name from outside is resolved inside a root and cannot leave it. Loading into
a module compares every name and shape first and reports all differences at once; the module is then changed whole or
not at all. What is not checked is whether the weights are any good: pin them by `weights_digest`, as each world does.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from teleworld.models.tensorfile import NotATensorFile, raw_bytes, read_metadata, serialise
from teleworld.world.errors import CheckpointError

_SUFFIX = ".safetensors"
_INDEX_SUFFIX = ".safetensors.index.json"
_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"})
_MAX_INDEX_BYTES = 8 * 2**20

# Training wrappers put these into parameter names; they say nothing about the parameter.
_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
# Self-Forcing style files hold several networks; the averaged one is what samples are drawn from.
_BRANCHES = ("generator_ema.", "generator.", "critic.")
_ROOT = "model."


@dataclass(frozen=True)
class LoadReport:
    """What a lenient load left out: module entries without a tensor, and tensors without a module entry."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def resolve_checkpoint(root: Path, name: str) -> Path:
    """The file that `name` (relative, "/"-separated) means inside `root`, after following links.

    Raises CheckpointError if it is absolute, climbs or links out of `root`, is not safetensors by name, or is no file.
    """
    parts = name.split("/")
    if not name or "\\" in name or not name.isprintable() or PureWindowsPath(name).drive:
        raise CheckpointError(repr(name), "not a relative checkpoint name")
    if any(part in ("", ".", "..") for part in parts):
        raise CheckpointError(name, "must stay inside the checkpoint folder, without empty, '.' or '..' parts")
    path = root.resolve().joinpath(*parts)
    _check_suffix(path, name)
    if not path.resolve().is_relative_to(root.resolve()):
        raise CheckpointError(name, "links out of the checkpoint folder")
    if not path.is_file():
        raise CheckpointError(name, "no such file in the checkpoint folder")
    return path.resolve()


def load_safetensors(
    path: str | os.PathLike[str], *, expected_sha256: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a checkpoint: (tensors by name, on the CPU; metadata).

    `path` is one `.safetensors` file, or the `.safetensors.index.json` of a sharded one, whose shards must lie beside
    it (their metadata is merged). `expected_sha256` is the hex digest of a single file.
    Raises CheckpointError for anything else, a pickle, damage, a wrong digest, or a file that changes while it is read.
    """
    path = Path(path)
    _check_suffix(path, str(path))
    if not path.name.endswith(_INDEX_SUFFIX):
        return _load_file(path, expected_sha256)
    if expected_sha256 is not None:
        raise CheckpointError(str(path), "a digest pins one file, not a sharded checkpoint; use weights_digest")
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    index = _read_index(path)
    for shard in sorted(set(index.values())):
        shard_tensors, shard_metadata = _load_file(resolve_checkpoint(path.parent, shard), None)
        tensors |= {name: tensor for name, tensor in shard_tensors.items() if index.get(name) == shard}
        metadata |= shard_metadata
    absent = sorted(set(index) - set(tensors))
    if absent:
        raise CheckpointError(str(path), f"the shards lack {', '.join(absent)}")
    return tensors, metadata


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata alone of what `load_safetensors` reads, without its tensors. Raises CheckpointError."""
    path = Path(path)
    _check_suffix(path, str(path))
    metadata: dict[str, str] = {}
    for file in shards_of(path) or (path,):
        try:
            with open(file, "rb") as stream:
                metadata |= read_metadata(stream)
        except OSError as error:
            raise CheckpointError(str(file), error.strerror or str(error)) from error
        except NotATensorFile as error:
            raise CheckpointError(str(file), str(error)) from error
    return metadata


def shards_of(path: Path) -> tuple[Path, ...]:
    """The shards that an index lists, sorted; none for a single file. Raises CheckpointError for a damaged index."""
    if not path.name.endswith(_INDEX_SUFFIX):
        return ()
    return tuple(resolve_checkpoint(path.parent, shard) for shard in sorted(set(_read_index(path).values())))


def branches_of(names: Iterable[str]) -> tuple[str, ...]:
    """Which networks of a training checkpoint the names tell of, the one that samples are drawn from first."""
    bare = [_without_wrappers(name) for name in names]
    return tuple(branch.rstrip(".") for branch in _BRANCHES if any(name.startswith(branch) for name in bare))


def strip_prefixes(tensors: Mapping[str, Tensor], *, branch: str | None = None) -> dict[str, Tensor]:
    """Names as the bare network has them, without the prefixes of training wrappers.

    Where a file holds several networks, `branch` ("generator_ema", "generator", "critic") picks one; without it the
    file must hold exactly one. Raises CheckpointError when the choice is open, empty, or two names become one.
    """
    names = {name: _without_wrappers(name) for name in tensors}
    present = branches_of(tensors)
    if branch is None and len(present) > 1:
        raise CheckpointError("branch", f"the file holds {', '.join(present)}: choose one")
    if branch is not None and branch not in present:
        raise CheckpointError("branch", f"the file has no {branch}")
    chosen = f"{branch}." if branch is not None else "".join(f"{only}." for only in present)
    stripped: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = names[name]
        if branch is not None and not bare.startswith(chosen):
            continue
        bare = bare.removeprefix(chosen).removeprefix(_ROOT)
        if bare in stripped:
            raise CheckpointError(name, f"two tensors are called {bare} once prefixes are stripped")
        stripped[bare] = tensor
    return stripped


def load_into(
    module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool, source: str = "checkpoint"
) -> LoadReport:
    """Copy `tensors` into `module`, casting floats to the module's dtype. `source` names the file in errors.

    A module on the `meta` device takes the tensors themselves instead of copies.
    Raises CheckpointError that lists every misshaped entry and, if `strict`, every missing and unexpected one. The
    module is untouched by a load that fails.
    """
    report = check_fit(module, tensors, strict=strict, source=source)
    own = module.state_dict()
    fitting = {name: tensors[name].to(entry.dtype) for name, entry in own.items() if name in tensors}
    module.load_state_dict(fitting, strict=False, assign=any(entry.is_meta for entry in own.values()))
    return report


def check_fit(
    module: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True, source: str = "checkpoint"
) -> LoadReport:
    """What `load_into` would leave out. Raises the CheckpointError that it would raise."""
    own = module.state_dict()
    missing = tuple(sorted(own.keys() - tensors.keys()))
    unexpected = tuple(sorted(tensors.keys() - own.keys()))
    common = sorted(own.keys() & tensors.keys())
    problems = [problem for name in common if (problem := _misfit(name, own[name], tensors[name]))]
    if strict:
        problems += [f"missing {name} {list(own[name].shape)}" for name in missing]
        problems += [f"unexpected {name} {list(tensors[name].shape)}" for name in unexpected]
    if problems:
        raise CheckpointError(source, "does not fit the module: " + "; ".join(problems))
    return LoadReport(missing, unexpected)


def weights_digest(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over the sorted names with dtype, shape and bytes of each tensor.

    It depends neither on the device nor on the file's layout, so it names the weights themselves; a world pins it.
    """
    tensors = weights.state_dict() if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        # One JSON line a tensor: no choice of names can imitate another set of weights.
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def save_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a checkpoint whole or not at all: a temporary file beside it, synced, then renamed over `path`.

    Equal content gives an equal file. Raises CheckpointError for a name that does not end in `.safetensors`, a dtype
    that the format lacks, or metadata that is not text.
    """
    path = Path(path)
    if path.suffix != _SUFFIX:
        raise CheckpointError(str(path), f"a checkpoint is saved as {_SUFFIX}")
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for piece in serialise(tensors, metadata or {}):
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
            os.fchmod(stream.fileno(), 0o644)
        os.replace(temporary, path)
    except ValueError as error:
        raise CheckpointError(str(path), str(error)) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    _sync_folder(path.parent)


def _check_suffix(path: Path, name: str) -> None:
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise CheckpointError(name, "pickled checkpoints can run code when loaded; convert it to safetensors")
    if path.suffix != _SUFFIX and not path.name.endswith(_INDEX_SUFFIX):
        raise CheckpointError(name, f"expected {_SUFFIX} or {_INDEX_SUFFIX}")


def _load_file(path: Path, expected_sha256: str | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with open(path, "rb") as stream:
            before = os.fstat(stream.fileno())
            metadata = read_metadata(stream)
            if expected_sha256 is not None:
                stream.seek(0)
                found = hashlib.file_digest(stream, "sha256").hexdigest()
                if found != expected_sha256.lower():
                    raise CheckpointError(str(path), f"sha256 is {found}, expected {expected_sha256.lower()}")
            tensors = load_file(path)
            # The library opens the file by name: make sure that it was the file whose header and digest were checked.
            after = os.stat(path)
    except OSError as error:
        raise CheckpointError(str(path), error.strerror or str(error)) from error
    except (NotATensorFile, SafetensorError) as error:
        raise CheckpointError(str(path), str(error)) from error
    if _identity(before) != _identity(after):
        raise CheckpointError(str(path), "changed while it was read")
    return tensors, metadata


def _read_index(path: Path) -> dict[str, str]:
    """Tensor name -> shard file name."""
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise CheckpointError(str(path), f"the index is larger than {_MAX_INDEX_BYTES} bytes")
        weight_map = json.loads(path.read_bytes())["weight_map"]
    except OSError as error:
        raise CheckpointError(str(path), error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(str(path), "damaged index: expected a JSON object with a weight_map") from error
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(str(path), "damaged index: the weight_map must map tensor names to file names")
    if any(not shard.endswith(_SUFFIX) for shard in weight_map.values()):
        raise CheckpointError(str(path), f"damaged index: a shard must end in {_SUFFIX}")
    return weight_map


def _without_wrappers(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _misfit(name: str, own: Tensor, given: Tensor) -> str | None:
    if own.shape != given.shape:
        return f"{name} is {list(given.shape)}, expected {list(own.shape)}"
    if own.is_floating_point() != given.is_floating_point():
        return f"{name} is {given.dtype}, expected {own.dtype}"
    return None


def _identity(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
