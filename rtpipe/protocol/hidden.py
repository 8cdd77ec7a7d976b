"""Taking items and responses that the client must not see out of what it gets.

A plugin may hide an item (a function call it answers itself) or a whole response. The host then filters every
server event, and refuses client events that name what they cannot know of. What is hidden is the host's to
keep; here are the rules.
"""

from collections.abc import Container, Mapping
from typing import Any

from rtpipe.protocol.catalogue import Client, Json
from rtpipe.protocol.events import call_id_of, item_id_of, item_of, references, response_id_of, response_of


def strip(
    event: Json,
    hidden_items: Container[str],
    hidden_responses: Container[str],
    previous: Mapping[str, str | None],
) -> Json | None:
    """A server event as the client may see it.

    None where all of it belongs to a hidden item or response; the very same object where nothing had to
    change. Else a new event: hidden items are gone from the response's `output`, and `previous_item_id` names
    the nearest visible item before. `previous` says which item came before each hidden one (None: it was the
    first).
    """
    if response_id_of(event) in hidden_responses or item_id_of(event) in hidden_items:
        return None
    changes: Json = {}
    before = event.get("previous_item_id")
    visible = relink(before, hidden_items, previous)
    if visible != before:
        changes["previous_item_id"] = visible
    response = response_of(event)
    output = response.get("output") if response is not None else None
    if response is not None and isinstance(output, list):
        kept = [item for item in output if not _is_hidden(item, hidden_items)]
        if len(kept) != len(output):
            changes["response"] = {**response, "output": kept}
    return {**event, **changes} if changes else event


def relink(item_id: Any, hidden_items: Container[str], previous: Mapping[str, str | None]) -> Any:
    """The nearest visible item at or before this one; None where all before it are hidden."""
    passed: set[str] = set()
    while isinstance(item_id, str) and item_id in hidden_items:
        if item_id in passed:  # a circle: nothing visible comes before it
            return None
        passed.add(item_id)
        item_id = previous.get(item_id)
    return item_id


def mentions(event: Json, hidden_items: Container[str], hidden_calls: Container[str]) -> bool:
    """Whether a client event names a hidden item or answers a hidden call, and has to be refused.

    Retrieve, delete and truncate of the item, a reference to it in a `response.create`, and a function call
    output for the call. Not `previous_item_id`, which the client may rightly know from elsewhere: relink that
    one.
    """
    named = [event.get("item_id"), *references(event)]
    if any(isinstance(name, str) and name in hidden_items for name in named):
        return True
    if event.get("type") != Client.ITEM_CREATE:
        return False
    return call_id_of(event) in hidden_calls and (item_of(event) or {}).get("type") == "function_call_output"


def _is_hidden(item: Any, hidden_items: Container[str]) -> bool:
    item_id = item.get("id") if isinstance(item, dict) else None
    return isinstance(item_id, str) and item_id in hidden_items
