"""``python -m smallq_deploy`` equals ``smallq-deploy``."""

from smallq_deploy.cli.main import main

if __name__ == "__main__":
    main()
