"""TeleWorld mesh: a world that a person walks through by keyboard while it is being generated."""

__version__ = "0.1.0"
