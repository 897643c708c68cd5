"""PEFT's own tests are run by ``make conformance`` from an unpacked copy, not collected here."""

collect_ignore_glob = ["*.py", "suite/*.py"]
