"""Whether two runs of a client were the same conversation for the model."""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.clients.recorder import Event, Heard

_ID = re.compile(r"\b(?:item|resp|event|call|sess|conv)_\w+")
_CLOCK = {"expires_at"}
# What is said before an interruption, and therefore what it costs, hangs on the moment it comes.
_CUT = {"audio_end_ms", "transcript", "text", "usage", "rate_limits"}
_SHOWN = 600

View = Callable[[Heard], Heard]
"""What of a session is compared. Without one all of it, each direction by itself: what crosses on the wire
has no order that both ends would agree on."""


def cut(heard: Heard) -> Heard:
    """For a turn that is interrupted: everything but deltas and how far they came."""
    sent = [event for event in heard.sent if not event["type"].endswith(".delta")]
    return Heard(*([_without(event, _CUT) for event in events] for events in (heard.received, sent)))


def by_type(heard: Heard) -> Heard:
    """For an answer beside a transcription, or beside what the client asks: in order within each type.

    Of an item that is asked for while it grows, no more than that it is the same one.
    """
    sent = [
        event | {"item": {"id": event["item"]["id"]}}
        if event["type"] == "conversation.item.retrieved"
        else event
        for event in heard.sent
    ]
    return Heard(*(sorted(events, key=lambda event: event["type"]) for events in (heard.received, sent)))


def model_left_out(heard: Heard) -> Heard:
    """For a client that names the model in its configuration, which the service ignores.

    rtpipe judges that model and takes it out, and gives the event that it wrote anew for this an id.
    """
    return Heard(
        [_left_out(event) if event["type"] == "session.update" else event for event in heard.received],
        heard.sent,
    )


def updates_crossing(heard: Heard) -> Heard:
    """For a client that sends its first two configurations in whichever order its own tasks come to run.

    After both the session is the same, so of the two answers the second is compared.
    """
    places = [i for i, event in enumerate(heard.received) if event["type"] == "session.update"][:2]
    received = list(heard.received)
    crossing = sorted((received[place] for place in places), key=partial(json.dumps, sort_keys=True))
    for place, event in zip(places, crossing, strict=True):
        received[place] = event
    first = next(i for i, event in enumerate(heard.sent) if event["type"] == "session.updated")
    return Heard(received, heard.sent[:first] + heard.sent[first + 1 :])


def lock_unmarked(heard: Heard) -> Heard:
    """What response-lock does to every create: a mark, by which it knows the response that echoes it."""
    return Heard([_unmarked(event) for event in heard.received], [_unmarked(event) for event in heard.sent])


def lock_waits(heard: Heard) -> Heard:
    """What response-lock does to a create that comes while a response runs.

    Without it the model refuses the create; with it the create waits, and is answered too. So neither
    that refusal nor a second response is compared, and everything else is.
    """
    responses = [event["response"]["id"] for event in heard.sent if event["type"] == "response.created"]
    sent = [event for event in heard.sent if not _refused_create(event)]
    ids = [event.get("response", {}).get("id") for event in sent]
    return Heard(heard.received, sent[: ids.index(responses[1])] if len(responses) > 1 else sent)


def _unmarked(event: Event) -> Event:
    if "response" not in event and event["type"] != "response.create":
        return event
    response = dict(event.get("response", {}))
    metadata = dict(response.pop("metadata", None) or {})
    metadata.pop("rtpipe_response_lock", None)
    if metadata or event["type"] != "response.create":
        response["metadata"] = metadata or None
    rest = {key: value for key, value in event.items() if key != "response" and not _ours(key, value)}
    return rest | ({"response": response} if response else {})


def _ours(key: str, value: Any) -> bool:
    """An id that rtpipe gave to an event without one."""
    return key == "event_id" and value.startswith("rtp_")


def _refused_create(event: Event) -> bool:
    return event["type"] == "error" and event["error"]["code"] == "conversation_already_has_active_response"


def first_difference(direct: Heard, through: Heard, *views: View) -> str | None:
    """The first event that differs, from both sides; None where nothing does."""
    for view in views:
        direct, through = view(direct), view(through)
    for what, ours, theirs in zip(("received", "sent"), _numbered(direct), _numbered(through), strict=True):
        for index in range(max(len(ours), len(theirs))):
            one, other = (side[index] if index < len(side) else None for side in (ours, theirs))
            if one != other:
                return (
                    f"event {index} that the model {what}: {_where(one, other)}: "
                    f"directly {_show(one)}, through rtpipe {_show(other)}"
                )
    return None


def _numbered(heard: Heard) -> list[list[Event]]:
    """Ids become their number in order of appearance, so two runs are alike if one renaming makes them so."""
    names: dict[str, str] = {}
    return [[_alike(event, names) for event in events] for events in (heard.received, heard.sent)]


def _alike(value: Any, names: dict[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _alike(each, names, name) for name, each in value.items() if name not in _CLOCK}
    if isinstance(value, list):
        return [_alike(each, names, key) for each in value]
    if not isinstance(value, str) or value == "root":
        return value
    if key == "id" or key.endswith("_id"):
        return names.setdefault(value, f"<{len(names)}>")
    return _ID.sub(lambda found: names.get(found[0], found[0]), value)


def _left_out(event: Event) -> Event:
    session = {key: value for key, value in event["session"].items() if key != "model"}
    ours = event.get("event_id", "").startswith("rtp_")
    return {key: value for key, value in event.items() if not (ours and key == "event_id")} | {
        "session": session
    }


def _without(value: Any, keys: set[str]) -> Any:
    """Sound goes with the words: ``audio`` is an object in a configuration, and base64 in an item."""
    if isinstance(value, dict):
        return {
            name: _without(each, keys)
            for name, each in value.items()
            if name not in keys and not (name == "audio" and isinstance(each, str))
        }
    if isinstance(value, list):
        return [_without(each, keys) for each in value]
    return value


def _where(one: Any, other: Any, path: str = "") -> str:
    """The first place in which two events differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                return _where(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    return path or "the whole"


def _show(event: Event | None) -> str:
    if event is None:
        return "nothing"
    text = json.dumps(event, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} … {text[-_SHOWN // 2 :]}"
