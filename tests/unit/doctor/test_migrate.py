"""What migrate knows of an old install: the checkout it was built with, by the provenance kept on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from smallq_deploy.operate.migrate import recorded_recipes
from smallq_deploy.store.generations import Generation
from tests.support.toolkits import write


def test_the_checkout_of_the_package_that_was_installed(own_home: Path) -> None:
    packages = own_home / "data/smallq-deploy/packages"
    for number, folder in enumerate(("0123456789abcdef", "fedcba9876543210")):
        record = {"schema_version": 1, "recipes": f"/checkouts/{number}", "package": {"sha256": str(number) * 64}}
        write(packages / folder / "provenance.json", json.dumps(record))
    write(packages / "0000000000000000" / "provenance.json", "{")
    generation = Generation(1, "customize", "2026-01-01T00:00:00Z", "installed", package_sha256="1" * 64)
    assert recorded_recipes(generation) == Path("/checkouts/1")
    assert recorded_recipes(replace(generation, package_sha256="2" * 64)) is None
    assert recorded_recipes(replace(generation, package_sha256="")) is None
    assert recorded_recipes(None) is None
