"""Content populating (paper 3.2, Eq. 3): tasks F1 and F2. Replicas share nothing. Run as `python -m services.populator`."""
