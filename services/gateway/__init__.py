"""The public API: worlds, their streams, and the dispatch of their tasks to the workers. Run as `python -m services.gateway`."""
