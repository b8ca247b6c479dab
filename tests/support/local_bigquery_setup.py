"""Installs the local-bigquery emulator into its own folder, once.

A file lock of the kernel keeps two installations apart: it is free again when its holder dies, so nothing goes stale.
"""

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import venv


def main(folder: pathlib.Path, packages: list[str], extensions: list[str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        marker, complete = folder / "complete", "\n".join(packages)
        if marker.exists() and marker.read_text() == complete:
            return
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        python = str(folder / "bin" / "python")
        home = folder / "home"
        home.mkdir()
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        # DuckDB looks for its extensions below HOME, and the emulator is started with this very HOME.
        code = "import sys; from duckdb_extensions import import_extension as i; [i(name) for name in sys.argv[1:]]"
        subprocess.run([python, "-c", code, *extensions], check=True, env={**os.environ, "HOME": str(home)})
        marker.write_text(complete)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split())
