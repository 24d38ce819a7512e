"""``unstill`` as a script, for torchrun: its console script is found only where the environment is activated."""

from unstill.trainer.cli.main import main

if __name__ == "__main__":
    main()
