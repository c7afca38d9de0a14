"""What the worker services compute, free of transport: planning, populating, reconstruction, decoding; and all of it in one process."""
