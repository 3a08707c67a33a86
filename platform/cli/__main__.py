"""``python -m oneiros.platform.cli``: the command where no script of it is on the path, as in a job that ships it."""

from oneiros.platform.cli.main import main

if __name__ == "__main__":
    main()
