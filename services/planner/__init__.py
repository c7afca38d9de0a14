"""Macro and micro planning (paper 3.2): tasks I, P and K. Run as `python -m services.planner`."""
