"""What every training run shares: resumable state, averaged weights, a learning-rate schedule, a metrics log.

A run lives in its own folder outside the repository and may be killed at any moment: state is written to a temporary
file and renamed, and `Run.resume` picks up the last whole one.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Run:
    """The state of one training run in `folder`: model, averaged model (EMA), optimiser, step and seconds spent."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        *,
        learning_rate: float,
        total_seconds: float,
        decay: float = 0.999,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        save_every: float = 180.0,
    ) -> None:
        self.folder = folder
        self.model = model
        self.learning_rate = learning_rate
        self.total_seconds = total_seconds
        self.decay = decay
        self.save_every = save_every
        self.step = 0
        self.seconds = 0.0
        self.average: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.optimiser: torch.optim.Optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=learning_rate, betas=betas, weight_decay=weight_decay
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._mark = self._saved = time.monotonic()

    def resume(self) -> bool:
        """Load the last state; False if there is none."""
        file = self.folder / "state.pt"
        if not file.exists():
            return False
        state = torch.load(file, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        return True

    def save(self) -> None:
        """Write the whole state so that a kill at any moment leaves either the old or the new one."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        temporary = self.folder / "state.pt.new"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "state.pt")
        self._saved = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether the time given to the run is spent."""
        return self.seconds >= self.total_seconds

    def update(self, loss: Tensor, clip: float = 1.0) -> float:
        """One optimiser step on `loss`; saves every `save_every` seconds. Returns the gradient norm."""
        progress = min(1.0, self.seconds / self.total_seconds)
        warm = min(1.0, (self.step + 1) / 50)
        cooled = 1.0 if progress < 0.6 else 0.5 * (1 + math.cos(math.pi * (progress - 0.6) / 0.4)) * 0.98 + 0.02
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * warm * cooled
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), clip))
        if math.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)
        now = time.monotonic()
        self.seconds += now - self._mark
        self._mark = now
        if now - self._saved > self.save_every:
            self.save()
        return norm

    def log(self, **figures: Any) -> None:
        """Append one line of figures to metrics.jsonl and print it."""
        line = {"step": self.step, "seconds": round(self.seconds), **_rounded(figures)}
        print(json.dumps(line), flush=True)
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def _rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
