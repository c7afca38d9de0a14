"""The experts' word: a YAML file of clip names with `keep` or `reject`, and who looked. What nobody looked at yet waits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from teleworld.curation.clips import Clip
from teleworld.curation.documents import read_yaml
from teleworld.curation.pipeline import Decision, Verdict
from teleworld.world.errors import InvalidInput


@dataclass(frozen=True)
class Review:
    """file: `{clip: {verdict: keep | reject, by: name, note: text}}`; it may be missing as long as nobody looked.
    unseen: what becomes of clips that are not in it."""

    file: Path
    unseen: Literal["keep", "reject", "pending"] = "pending"

    def judge(self, clip: Clip, folder: Path) -> Decision:
        """Read anew for each clip, so that experts may go on writing."""
        listed = read_yaml(self.file, "review.file") if self.file.exists() else {}
        if not isinstance(listed, dict):
            raise InvalidInput("review.file", f"{self.file.name} must map clip names to verdicts")
        entry = listed.get(clip.name)
        if entry is None:
            return Decision(Verdict(self.unseen), reason="no expert has looked")
        if not isinstance(entry, dict) or entry.get("verdict") not in ("keep", "reject"):
            raise InvalidInput(f"review.{clip.name}.verdict", "must be keep or reject")
        said = f"{entry.get('by', 'expert')}: {entry.get('note', '')}".rstrip(": ")
        return Decision(Verdict(entry["verdict"]), reason=said)
