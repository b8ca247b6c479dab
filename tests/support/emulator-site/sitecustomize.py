"""Python runs this when the emulator starts, before anything else."""

import sys

# DuckDB looks for pandas each time that rows are fetched. The emulator has none, and the search takes longer than most
# queries. This entry ends it at once.
sys.modules["pandas"] = None
