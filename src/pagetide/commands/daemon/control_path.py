"""Where the daemon's control socket is when nobody says."""

import os
from pathlib import Path


def default_control_path() -> Path:
    """`pagetide/control.sock` in this user's runtime folder: XDG_RUNTIME_DIR, or one below /tmp if unset."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "pagetide" if runtime else Path(f"/tmp/pagetide-{os.getuid()}")  # noqa: S108
    return folder / "control.sock"


def make_private(folder: Path) -> None:
    """Make sure that a folder is there, and ours alone.

    Raises:
        OSError: it cannot be made, or is somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
