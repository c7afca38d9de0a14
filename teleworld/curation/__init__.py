"""From raw video to annotated training clips (paper 4.1): shots, filters, expert review, annotations.

`pipeline.py` runs the stages that a configuration lists, `stages/` holds those that come with the library. Every decision and
score is logged per clip, and a run that was stopped goes on where it was.
"""
