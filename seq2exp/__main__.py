"""`python -m seq2exp` is the command seq2exp."""

from seq2exp.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
