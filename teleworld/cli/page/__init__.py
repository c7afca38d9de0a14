"""The page on which a person walks by keyboard: keys go up and H.264 comes down, over one WebSocket on this machine."""
