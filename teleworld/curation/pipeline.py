"""Runs the stages over all clips, in order, and writes down every decision.

    <out>/decisions.jsonl     one line a clip and stage: decision, scores, reason, seconds, digest of the stage's settings
    <out>/clips/<clip>/       annotations of the clips that are kept
    <out>/report.html, report.json

A line that is there is not made again, unless the stage's settings changed. A stage rejects a clip, keeps it, or leaves it
pending (an expert has not looked yet); only clips that every earlier stage kept reach the next one.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import TypeAdapter, ValidationError

from teleworld.curation.clips import Clip, sources, whole
from teleworld.curation.documents import read_yaml
from teleworld.world.errors import InvalidInput, TeleWorldError

LOG = "decisions.jsonl"
BUILT_IN = {
    "shots": "teleworld.curation.stages.shots:Shots",
    "quality": "teleworld.curation.stages.quality:Quality",
    "text_overlay": "teleworld.curation.stages.text_overlay:TextOverlay",
    "camera_motion": "teleworld.curation.stages.motion:CameraMotion",
    "moving_objects": "teleworld.curation.stages.motion:MovingObjects",
    "review": "teleworld.curation.stages.review:Review",
    "masks": "teleworld.curation.stages.masks:MotionMasks",
    "cameras": "teleworld.curation.stages.cameras:Cameras",
    "depth": "teleworld.curation.stages.depth:Depth",
    "captions": "teleworld.curation.stages.captions:Captions",
}


class Verdict(Enum):
    """What becomes of a clip."""

    KEEP = "keep"
    REJECT = "reject"
    PENDING = "pending"


@dataclass(frozen=True)
class Decision:
    """A verdict with its measured scores, and why, in words."""

    verdict: Verdict
    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


@runtime_checkable
class Splitter(Protocol):
    """The first stage: cuts a source into clips."""

    def split(self, source: Clip) -> Sequence[Clip]: ...


@runtime_checkable
class Stage(Protocol):
    """A filter or an annotator. `folder` is the clip's own, for what it writes; earlier stages' files are there."""

    def judge(self, clip: Clip, folder: Path) -> Decision: ...


@dataclass(frozen=True)
class Named:
    """A stage as it was configured. `digest` changes with its class and settings, and with any stage before it."""

    name: str
    stage: Any
    digest: str


def load_config(file: Path) -> list[Named]:
    """The stages that a YAML file lists: `stages: [{use: quality, blur: 50}, ...]`.

    `use` names a built-in stage, or a class of your own as `module:Class`; everything else are its fields. Raises
    InvalidInput naming the stage and the field, or `config` for a file that is not YAML.
    """
    document = read_yaml(file, "config")
    listed = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed:
        raise InvalidInput("stages", f"{file.name} must list at least one stage")
    stages: list[Named] = []
    for number, entry in enumerate(listed):
        stages.append(configure(f"stages[{number}]", entry, stages[-1].digest if stages else ""))
    return stages


def configure(where: str, entry: Any, before: str = "") -> Named:
    """One stage from its entry, behind one with the digest `before`. Raises InvalidInput naming `where` and the field."""
    if not isinstance(entry, dict) or not isinstance(entry.get("use"), str):
        raise InvalidInput(f"{where}.use", "must name a stage")
    name: str = entry["use"]
    path = BUILT_IN.get(name, name)
    module, _, attribute = path.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(BUILT_IN)
        raise InvalidInput(
            f"{where}.use", f"{name!r} is neither one of {known} nor an importable module:Class"
        ) from error
    options = {key: value for key, value in entry.items() if key != "use"}
    if unknown := set(options) - set(kind.__dataclass_fields__):
        raise InvalidInput(f"{where}.{sorted(unknown)[0]}", f"is no setting of {name}")
    try:
        stage = TypeAdapter(kind).validate_python(options)
    except ValidationError as error:
        fault = error.errors()[0]
        raise InvalidInput(f"{where}.{'.'.join(map(str, fault['loc']))}", fault["msg"]) from error
    settings = json.dumps({"before": before, "path": path} | asdict(stage), sort_keys=True, default=str)
    return Named(name.rpartition(":")[2] or name, stage, hashlib.sha256(settings.encode()).hexdigest()[:16])


class Pipeline:
    """Stages over sources. `said` hears one line a clip."""

    def __init__(self, stages: Sequence[Named], out: Path, said: Callable[[str], None] = lambda line: None) -> None:
        self._stages = [one for one in stages if not isinstance(one.stage, Splitter)]
        self._splitters = [one for one in stages if isinstance(one.stage, Splitter)]
        if len(self._splitters) > 1:
            raise InvalidInput("stages", "only one stage may split sources into clips")
        self._out = out
        self._said = said
        self._known = _read_log(out / LOG)

    def run(self, root: Path) -> list[Clip]:
        """Curate everything below `root`; returns the clips that every stage kept. Raises NotFound if there is nothing."""
        self._out.mkdir(parents=True, exist_ok=True)
        kept = []
        for source in sources(root):
            for clip in self._clips(source):
                if self._judge(clip):
                    kept.append(clip)
        return kept

    def decisions(self) -> list[dict[str, Any]]:
        """The newest line of every clip and stage, in the order in which they were made."""
        return list(self._known.values())

    @property
    def order(self) -> list[str]:
        """Names of the stages that judge clips."""
        return [one.name for one in self._stages]

    def _clips(self, source: Path) -> Sequence[Clip]:
        try:
            everything = whole(source)
            return self._splitters[0].stage.split(everything) if self._splitters else [everything]
        except TeleWorldError as error:
            self._write(source.stem, "source", "", Decision(Verdict.REJECT, reason=error.message), 0.0)
            self._said(f"{source.name}: {error.message}")
            return []

    def _judge(self, clip: Clip) -> bool:
        folder = self._out / "clips" / clip.name
        for named in self._stages:
            line = self._known.get((clip.name, named.name))
            # An expert may have looked since, so what is pending is asked again.
            if line is None or line["settings"] != named.digest or line["verdict"] == Verdict.PENDING.value:
                line = self._ask(clip, named, folder)
            if line["verdict"] != Verdict.KEEP.value:
                self._said(f"{clip.name}: {named.name} {line['verdict']} ({line['reason']})")
                return False
        self._said(f"{clip.name}: kept")
        return True

    def _ask(self, clip: Clip, named: Named, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        try:
            decision = named.stage.judge(clip, folder)
        except TeleWorldError as error:
            decision = Decision(Verdict.REJECT, reason=error.message)
        return self._write(clip.name, named.name, named.digest, decision, time.perf_counter() - began)

    def _write(self, clip: str, stage: str, settings: str, decision: Decision, seconds: float) -> dict[str, Any]:
        line = {
            "clip": clip,
            "stage": stage,
            "verdict": decision.verdict.value,
            "scores": {name: round(float(value), 6) for name, value in decision.scores.items()},
            "reason": decision.reason,
            "seconds": round(seconds, 3),
            "settings": settings,
        }
        with (self._out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._known[clip, stage] = line
        return line


def _read_log(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest whole line of every clip and stage; a torn last line is that of a run that was killed."""
    known: dict[tuple[str, str], dict[str, Any]] = {}
    if not file.exists():
        return known
    text = file.read_text(encoding="utf-8")
    whole_lines = text[: text.rfind("\n") + 1]
    if len(whole_lines) < len(text):
        file.write_text(whole_lines, encoding="utf-8")
    for row in whole_lines.splitlines():
        line = json.loads(row)
        known[line["clip"], line["stage"]] = line
    return known
