"""Use cases on one host: plan, build, install, verify, repair."""
