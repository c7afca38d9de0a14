"""What the worker services compute, free of transport, and all of it in one process."""
