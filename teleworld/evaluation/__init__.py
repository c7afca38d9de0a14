"""Evaluation: walks along recorded cameras, and figures that compare them with the engine's own pictures."""
