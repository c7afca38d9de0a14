"""Discrete-event simulation of a mesh: the live policy, unchanged, on simulated devices. No I/O, no wall clock.

What is simulated is time alone. The tasks, their order and every decision come from `teleworld.scheduling.policy`, the very
module that the gateway runs; how long a task holds a device comes from a cost table (`teleworld.scheduling.costs`).

    specification.py   what is asked: devices, worlds, tenants, SLO
    reading.py         that, read strictly from YAML (`teleworld.scheduling.fields`)
    agenda.py          the queue of events
    chance.py          every random draw, reproducible by seed and independent of the order of events
    fleet.py           devices and their workers: cold start, failure, autoscaling, busy time
    crowd.py           arrivals, tenants, keys, departures
    viewer.py          the client of one world: playback and stalls
    footprint.py       bytes of latents, keys and values
    timing.py          how long each task takes its device
    engine.py          the loop that ties them to the policy
    results.py         what is measured, and how it is summed up
    bounds.py          the critical path and the work of a world: what no ordering can beat
    sizing.py          the smallest pools that meet an SLO
"""
