"""Running one section by itself: `python -m benchmarks.latency --rounds 1` keeps nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.report import machine, to_markdown
from benchmarks.sections import Section, add_options, parse_options


def run_alone(section: Section) -> None:
    """Measure a section with the options of the command line, and print it."""
    parser = argparse.ArgumentParser(
        description=f"{sys.modules[section.__module__].__doc__} Nothing is kept."
    )
    add_options(parser)
    finding = section(parse_options(parser.parse_args()))
    print(to_markdown(Path(sys.argv[0]).stem, finding))
    print(f"\n{machine()}")
