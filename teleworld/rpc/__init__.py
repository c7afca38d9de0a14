"""Transport: how the objects of `teleworld.world.work` travel between processes over gRPC, and what guards that.

Nothing here computes; nothing here is needed to generate a world in one process.
"""
