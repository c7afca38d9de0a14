"""The `teleworld` command: a local mesh, walks to video files, recording, training, and what models there are."""
