"""One section by itself: `python -m benchmarks.latency --rounds 1` prints and keeps nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.report import circumstances, shown
from benchmarks.sections import Section, options, told


def alone(section: Section) -> None:
    """Measure what the command line asks for and print it."""
    parser = argparse.ArgumentParser(description=section.__doc__)
    options(parser)
    finding = section(told(parser.parse_args()))
    print(shown(Path(sys.argv[0]).stem, finding))
    print(f"\n{circumstances()}")
