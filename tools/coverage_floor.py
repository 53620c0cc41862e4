"""Say how much of remote/ and handlers/ the tests reach, and fail below a floor: `coverage_floor.py PERCENT`."""

import json
import sys
import tempfile
from pathlib import Path

from coverage import Coverage


def measure() -> tuple[float, float]:
    """The percentages of lines with branches, and of branches alone, from the combined data."""
    data = Coverage()
    data.load()
    data.report(file=sys.stdout)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "coverage.json"
        data.json_report(outfile=str(path))
        totals = json.loads(path.read_text())["totals"]
    if not totals.get("num_branches"):
        sys.exit("nothing was measured: make test first")
    return totals["percent_covered"], 100.0 * totals["covered_branches"] / totals["num_branches"]


def main() -> None:
    """Print both and leave with 1 when either is below the floor."""
    floor = float(sys.argv[1])
    both, branches = measure()
    print(f"coverage of remote and handlers: {both:.2f} % of lines and branches, {branches:.2f} % of branches")  # noqa: T201
    if min(both, branches) < floor:
        sys.exit(f"below {floor:g} %")


if __name__ == "__main__":
    main()
