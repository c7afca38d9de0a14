"""What drives a world, free of transport and of arithmetic: sessions, journal, dispatcher. numpy only."""
