"""What the worker services share: settings, the desk that every task passes, and the life of a worker process."""
