"""A recorder that films Doom maps as if the engine were a camera with a depth sensor.

`record` turns a list of jobs into episodes on disk; `teleworld.training.dataset` reads them. Every episode is a
function of the engine version, the WAD, the map and a seed, so a dataset is a recipe, not a download. The geometry is
exact because it is traced from the map itself (`depth`), and a check warps frames into one another to prove it
(`warp_check`). Needs ViZDoom, which nothing outside this package imports.
"""
