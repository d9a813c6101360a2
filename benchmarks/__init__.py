"""What the gateway costs, next to the peers it compares with. `make bench` prints the tables."""
