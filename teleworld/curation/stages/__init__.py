"""The stages that come with the library. Each is a frozen dataclass of its settings with `split` or `judge`."""
