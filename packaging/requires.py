"""Print what pyproject.toml requires: to build (no argument), or an extra by name."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
if len(sys.argv) > 1:
    wanted = project["project"]["optional-dependencies"][sys.argv[1]]
else:
    wanted = project["build-system"]["requires"]
# Read by the shell word by word, without quotes: a requirement holds no spaces here.
print(*(requirement.replace(" ", "") for requirement in wanted))
