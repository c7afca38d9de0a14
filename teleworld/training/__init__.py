"""Offline programs: recording of data and training of each model. Nothing that serves imports from here."""
