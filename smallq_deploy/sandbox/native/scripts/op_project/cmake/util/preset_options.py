"""preset_options.py CMakePresets.json SOURCE_DIRECTORY: one -D option a line, of the first preset."""

import json
import sys
from pathlib import Path

preset = json.loads(Path(sys.argv[1]).read_text())["configurePresets"][0]
for name, entry in preset["cacheVariables"].items():
    value = entry["value"] if isinstance(entry, dict) else entry
    print(f"-D{name}:{entry['type']}={value}".replace("${sourceDir}", sys.argv[2]))
