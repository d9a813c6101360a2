"""What carries frames: SocketCAN by our own path, every other interface by python-can."""
