"""The `geop2p` command."""
