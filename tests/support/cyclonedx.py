"""What the CycloneDX 1.5 specification requires of a bill of materials."""

from __future__ import annotations

import re
from typing import Any

# The values of `type` in the CycloneDX 1.5 specification.
COMPONENT_TYPES = {
    *("application", "framework", "library", "container", "platform", "operating-system", "device", "device-driver"),
    *("firmware", "file", "machine-learning-model", "data"),
}


def check_cyclonedx(document: dict[str, Any]) -> None:
    """What the 1.5 specification requires of the parts that are used here; AssertionError where it is missing."""
    assert document["bomFormat"] == "CycloneDX"
    assert document["specVersion"] == "1.5"
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", document["serialNumber"]
    )
    assert type(document["version"]) is int and document["version"] >= 1
    metadata = document["metadata"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["timestamp"])
    components = [metadata["component"], *metadata["tools"]["components"], *document["components"]]
    for component in components:
        assert component["type"] in COMPONENT_TYPES
        assert isinstance(component["name"], str) and component["name"]
        for digest in component.get("hashes", ()):
            assert digest["alg"] == "SHA-256" and re.fullmatch("[0-9a-f]{64}", digest["content"])
        for item in component.get("properties", ()):
            assert set(item) == {"name", "value"} and all(isinstance(value, str) for value in item.values())
        assert component.get("scope", "required") in ("required", "optional", "excluded")
        assert isinstance(component.get("version", ""), str)
    references = [component["bom-ref"] for component in components if "bom-ref" in component]
    assert len(references) == len(set(references))
    told = [item["ref"] for item in document["dependencies"]]
    assert len(told) == len(set(told))
    for item in document["dependencies"]:
        assert item["ref"] in references
        assert len(item["dependsOn"]) == len(set(item["dependsOn"]))
        assert set(item["dependsOn"]) <= set(references)
