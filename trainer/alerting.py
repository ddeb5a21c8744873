"""How a run tells its spikes: a line in the terminal, one in a file, a post to a webhook; what is lost is counted."""

__all__ = ["Alerting"]

from collections.abc import Callable
from typing import Any

from ..probes.alerts import OnSpike, in_words, json_lines, webhook
from ..probes.spikes import Spike
from .config_alert import AlertConfig


class Alerting:
    """The ways that `config` asks for, as callbacks of `foreshock.probes.alerts.Alerts`, in whose thread they run.

    `say(text, style)` prints; the run puts its own printer there, so that the bar stays whole. Raises ValueError for a
    webhook that is no URL, OSError for a file that can't be written.

    >>> alerting = Alerting(AlertConfig(line=True))
    >>> alerting.say = lambda text, style: print(text)
    >>> for tell in alerting.ways:
    ...     tell(Spike("patch_embed", 7, 7, 8, 9, 3.25, 6.0, 1.0, "spike"))
    spike: patch_embed rose 3.2-fold at step 7
    """

    def __init__(self, config: AlertConfig) -> None:
        self.say: Callable[[str, str], Any] = lambda text, style: None
        self.lost = 0
        """Number of alerts that did not arrive, of which `trouble` tells about the first."""
        self.trouble = ""
        self.ways: list[OnSpike] = []
        if config.webhook is not None:
            self.ways.append(webhook(config.webhook, failed=self._lose))
        if config.file is not None:
            self.ways.append(self._into(config.file))
        if config.line:
            self.ways.append(self._line)

    def _line(self, spike: Spike) -> None:
        self.say(f"spike: {in_words(spike)}", "yellow")

    def _into(self, file: str) -> OnSpike:
        write = json_lines(file)

        def write_or_lose(spike: Spike) -> None:
            try:
                write(spike)
            except OSError as error:
                self._lose(f"{file} did not take the alert that {in_words(spike)}: {error}")

        return write_or_lose

    def _lose(self, text: str) -> None:
        """Count what did not arrive; only the first is told, since the next ones will be like it."""
        self.lost += 1
        if self.lost == 1:
            self.trouble = text
            self.say(f"{text}; further ones are only counted", "red")
