"""The deployables: one package a service, run as `python -m services.<name>`."""
