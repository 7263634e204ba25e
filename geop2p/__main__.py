"""`python -m geop2p` is the `geop2p` command."""

from geop2p_cli.main import main

if __name__ == "__main__":
    main()
