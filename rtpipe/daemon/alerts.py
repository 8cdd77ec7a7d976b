"""Alerts to whoever should look: each is posted to the operator's webhook, once in a period."""

import logging
import math
from collections.abc import Callable

import trio

from rtpipe.api.errors import ConfigError
from rtpipe.api.facts import Alerted, Fact
from rtpipe.daemon.config_observe import Alerts as Config

log = logging.getLogger("rtpipe.alerts")

WAITING = 100
"""Alerts that may wait for the webhook; more are not sent, which the log says. They are in the log anyway."""
TIMEOUT_S = 10.0
RETRY_AFTER_S = (1.0, 4.0, 16.0)
_REMEMBERED = 10_000
_WORTH_A_RETRY = frozenset({408, 425, 429})


class Alerts:
    """Sees every fact; what is an alert, and no repetition of one, is sent by ``run``."""

    def __init__(self, config: Callable[[], Config], now: Callable[[], float]) -> None:
        self._config = config
        self._now = now
        self._sent_s: dict[tuple[str, ...], float] = {}
        self._send, self._receive = trio.open_memory_channel[Alerted](WAITING)

    def fact(self, fact: Fact) -> None:
        """See what became of something."""
        if not isinstance(fact, Alerted) or self._config().webhook is None:
            return
        key = (fact.stage, fact.name, *(f"{name}={value}" for name, value in sorted(fact.labels.items())))
        if self._now() - self._sent_s.get(key, -math.inf) < self._config().period_s:
            return
        self._sent_s.pop(key, None)  # so that the oldest is always the first
        self._sent_s[key] = self._now()
        if len(self._sent_s) > _REMEMBERED:
            del self._sent_s[next(iter(self._sent_s))]
        try:
            self._send.send_nowait(fact)
        except trio.WouldBlock:
            log.warning("the alert %s was not sent: %d wait for the webhook", fact.name, WAITING)

    async def run(self) -> None:
        """Post what comes, one after the other; never ends."""
        async for alert in self._receive:
            webhook = self._config().webhook
            if webhook is None:  # a reload has taken it away
                continue
            try:
                await self._post(webhook.reveal(), alert)
            except ConfigError as exc:
                log.warning("the alert %s was not sent: %s", alert.name, exc)

    async def _post(self, url: str, alert: Alerted) -> None:
        import httpx2  # most daemons have no webhook

        for name in ("httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log addresses, and this one is a secret
        body = {
            "name": alert.name,
            "stage": alert.stage,
            "session": alert.session,
            "message": alert.message,
            "labels": dict(alert.labels),
        }
        why = ""
        async with httpx2.AsyncClient(timeout=TIMEOUT_S) as client:
            for pause_s in (*RETRY_AFTER_S, None):
                try:
                    with trio.fail_after(TIMEOUT_S):
                        status = (await client.post(url, json=body)).status_code
                except (httpx2.HTTPError, httpx2.InvalidURL, trio.TooSlowError, ValueError) as exc:
                    why = type(exc).__name__  # its words may have the address in them, which is a secret
                else:
                    if status < 400:
                        return
                    why = f"status {status}"
                    if status < 500 and status not in _WORTH_A_RETRY:
                        break
                if pause_s is not None:
                    await trio.sleep(pause_s)
        log.warning("the alert %s was not sent: the webhook answers with %s", alert.name, why)
