"""``python -m lm4ve``, where the console command is not on the path."""

from lm4ve.commands import main

if __name__ == '__main__':
    main()
