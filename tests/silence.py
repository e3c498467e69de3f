"""A slow clock for commands: work that takes long moves it, and what shows nothing meanwhile is found out.

Every call of what is slow on real data counts for so many seconds, however small the data of a test are. A command may
work for three of them in a row while no `Progress` is open, and an open one has to know how much there is to do.
"""

import importlib
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lsr_infer.system.progress import Progress

SLOW = {
    ("lsr_train.network", "DeepLabV2.forward"): 1.0,
    ("onnxruntime", "InferenceSession.__init__"): 2.0,
    ("onnxruntime", "InferenceSession.run"): 1.0,
    ("torch.onnx", "export"): 20.0,
    ("matplotlib.figure", "Figure.savefig"): 2.0,
    ("sklearn.manifold", "TSNE.fit_transform"): 10.0,
    ("cv2", "imdecode"): 0.2,
    ("lsr_train.toytown.scene", "Scene.__init__"): 0.2,
    ("lsr_infer.video.reader", "VideoFrame"): 0.2,
    ("lsr_train.comparison.schedule", "Processes.run"): 60.0,
}
"""What takes long on real data, by module and name, and the seconds of a call."""
QUIET_SECONDS = 3.0
LONG_STEP_SECONDS = 25.0
"""Of one step, such as the tracing of a graph, of which nobody knows how much there is to do."""


class Silence:
    """What a command did in silence; `worked` is how many slow calls there were."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.worked = 0
        self._open: list[Progress] = []
        self._seconds: dict[Progress | None, float] = {}
        self._lock = threading.Lock()

    def opened(self, shown: Progress) -> None:
        with self._lock:
            self._seconds.pop(None, None)
            self._open.append(shown)

    def closed(self, shown: Progress) -> None:
        with self._lock:
            self._open.remove(shown)

    def work(self, what: str, seconds: float) -> None:
        """Let the clock of the innermost open progress, or that of the silence, move on."""
        with self._lock:
            self.worked += 1
            shown = self._open[-1] if self._open else None
            self._seconds[shown] = self._seconds.get(shown, 0.0) + seconds
            passed = self._seconds[shown]
        frames = reversed(traceback.extract_stack()[-12:-2])
        place = " < ".join(frame.name for frame in frames if "lsr" in frame.filename)
        if shown is None and passed > QUIET_SECONDS:
            self.found.append(f"{what}: {passed:.0f} s without a sign ({place})")
        elif shown is not None and shown.total is None and passed > LONG_STEP_SECONDS:
            self.found.append(f"{what}: {passed:.0f} s in {shown.name!r}, which knows no end ({place})")


@contextmanager
def listening() -> Iterator[Silence]:
    """Move the slow clock inside the block, and note what is silent."""
    heard = Silence()

    def slowed(function: Callable[..., Any], what: str, seconds: float) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            heard.work(what, seconds)
            return function(*words, **named)

        return call

    enter, leave = Progress.__enter__, Progress.__exit__

    def opened(self: Progress) -> Progress:
        heard.opened(self)
        return enter(self)

    def closed(self: Progress, *ended: object) -> None:
        heard.closed(self)
        leave(self, *ended)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "__enter__", opened)
        patch.setattr(Progress, "__exit__", closed)
        for (module, name), seconds in SLOW.items():
            owner: Any = importlib.import_module(module)
            *outer, last = name.split(".")
            for part in outer:
                owner = getattr(owner, part)
            patch.setattr(owner, last, slowed(getattr(owner, last), f"{module}.{name}", seconds))
        yield heard
