"""`python -m berth`: where there is no `berth` on the PATH."""

from berth.cli.main import main

if __name__ == "__main__":
    main()
