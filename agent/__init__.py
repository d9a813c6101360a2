"""The gateway: profile, bench, commands, availability, uplink, store and the command line."""
