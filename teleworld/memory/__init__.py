"""The 4D memory: fuses key frames into static and dynamic points, renders them as guidance, and keeps them in a store.

Numpy and numba only; `redis_store` alone needs redis. `Memory` is the way in.
"""
