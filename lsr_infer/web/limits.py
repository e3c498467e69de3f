"""What the demo page takes, and the sentence in which it refuses what it does not take.

Plain numbers with checks; knows neither sessions nor files.
"""

from dataclasses import dataclass, fields

from lsr_infer.errors import InputError, UsageError

__all__ = ["Limits", "file_size"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Everything that one user may ask for.

    Args:
        upload_bytes: of one uploaded file.
        session_bytes: of everything that lies on the disk for one session; its oldest results make room.
        pixels: of one decoded picture or frame.
        seconds: length of a video.
        frames: of a video or an animation.
        shown_width: columns of a video's pictures in the page; wider ones are reduced.
        jobs: videos that are computed at the same time.
        queue: jobs of all sessions that may wait.
        session_jobs: jobs of one session that may wait or run.
        job_seconds: how long one video may compute.
        picture_seconds: how long one picture may.
        job_bytes: memory of the process that computes a job.
        session_seconds: idle time after which a session's files are removed.
        sessions: visitors, and as many programs, at the same time.
        free_bytes: of the disk that must stay free; nothing more is taken once there is less.

    Raises:
        UsageError: a value is not above 0.
    """

    upload_bytes: int = 256 << 20
    session_bytes: int = 2 << 30
    pixels: int = 1 << 25
    seconds: float = 600.0
    frames: int = 20_000
    shown_width: int = 1280
    jobs: int = 1
    queue: int = 40
    session_jobs: int = 4
    job_seconds: float = 1800.0
    picture_seconds: float = 60.0
    job_bytes: int = 6 << 30
    session_seconds: float = 3600.0
    sessions: int = 1000
    free_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise UsageError(f"the limit {field.name} is {value}; allowed: finite numbers above 0.")

    def check_bytes(self, name: str, count: int) -> None:
        """Raise `InputError` unless a file of so many bytes is taken."""
        if count > self.upload_bytes:
            raise InputError(
                f"{name} has {file_size(count)}; at most {file_size(self.upload_bytes)} are taken. Cut it, or "
                "reduce it."
            )

    def check_pixels(self, name: str, height: int, width: int) -> None:
        """Raise `InputError` unless pictures of this size are decoded."""
        if height * width > self.pixels:
            raise InputError(
                f"{name} has {width} x {height} pixels; at most {self.pixels / 1e6:.0f} million are decoded. Reduce it."
            )

    def check_length(self, name: str, seconds: float | None, frames: int | None) -> None:
        """Raise `InputError` unless a video of this length is taken; None stands for what it does not say."""
        if seconds is not None and seconds > self.seconds:
            raise InputError(
                f"{name} lasts {seconds:.0f} s; at most {self.seconds:g} s are taken. Cut a part out of it."
            )
        if frames is not None and frames > self.frames:
            raise InputError(f"{name} has {frames} frames; at most {self.frames} are taken. Cut a part out of it.")


def file_size(count: int) -> str:
    """Return a number of bytes in the unit people use for files."""
    value, unit = (count / 1e3, "kB") if count < 1e6 else (count / 1e6, "MB")
    return f"{value:.{0 if value >= 10 else 1}f} {unit}"
