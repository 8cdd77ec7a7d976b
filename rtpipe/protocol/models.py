"""Realtime models: their families, and the days on which services shut them down.

Source: OpenAI's and Azure's pages of models and deprecations as of 2026-11-22. What is not listed has no date
that was known then.
"""

from datetime import date
from typing import Final, NamedTuple

WARN_DAYS: Final = 180
"""How long before its end a model is worth a warning."""


class Model(NamedTuple):
    """One name that a client may ask for.

    *family* is the name without a snapshot's date, which the service points at one of its snapshots. *ends*
    maps a service (`openai`, `azure`) to the day from which it answers no more; a snapshot that has none of
    its own there ends with its family. *replacement* is what to ask for instead, "" if nothing is known.
    """

    name: str
    family: str
    ends: dict[str, date]
    replacement: str


def _model(name: str, *, of: str = "", openai: str = "", azure: str = "", instead: str = "") -> Model:
    days = {"openai": openai, "azure": azure}
    ends = {service: date.fromisoformat(day) for service, day in days.items() if day}
    return Model(name, of or name, ends, instead)


_FULL, _MINI = "gpt-realtime-2.1", "gpt-realtime-2.1-mini"
_PREVIEW, _MINI_PREVIEW = "gpt-4o-realtime-preview", "gpt-4o-mini-realtime-preview"

MODELS: Final = {
    model.name: model
    for model in (
        _model(_FULL, azure="2027-06-25"),
        _model(_MINI, azure="2027-06-25"),
        _model("gpt-realtime-2", azure="2027-01-20", instead=_FULL),
        _model("gpt-realtime-1.5", azure="2027-08-24"),
        _model("gpt-realtime-1.5-2026-02-23", of="gpt-realtime-1.5", azure="2027-08-24"),
        _model("gpt-realtime", openai="2027-01-20", azure="2027-03-02", instead=_FULL),
        _model(
            "gpt-realtime-2025-08-28",
            of="gpt-realtime",
            openai="2027-01-20",
            azure="2027-03-02",
            instead=_FULL,
        ),
        _model("gpt-realtime-mini", openai="2027-01-20", azure="2027-06-15", instead=_MINI),
        _model("gpt-realtime-mini-2025-10-06", of="gpt-realtime-mini", azure="2027-04-06", instead=_MINI),
        _model("gpt-realtime-mini-2025-12-15", of="gpt-realtime-mini", openai="2027-01-20", instead=_MINI),
        _model(f"{_PREVIEW}-2024-10-01", of=_PREVIEW, azure="2025-03-26", instead=_FULL),
        _model(f"{_MINI_PREVIEW}-2024-12-17", of=_MINI_PREVIEW, openai="2027-01-20", instead=_MINI),
        _model("gpt-realtime-whisper", azure="2027-05-06"),
        _model("whisper-1", openai="2027-02-26"),
        _model("gpt-4o-transcribe", openai="2027-02-26"),
        _model("gpt-4o-transcribe-diarize", openai="2027-02-26"),
        _model("gpt-4o-mini-transcribe", openai="2027-02-26"),
        _model("gpt-4o-mini-transcribe-2025-12-15", of="gpt-4o-mini-transcribe"),
    )
}


def ends(name: str, service: str) -> date | None:
    """The day on which *service* shuts the model down, where one is known."""
    model = MODELS.get(name)
    if model is None:
        return None
    family = MODELS.get(model.family, model)
    return model.ends.get(service) or family.ends.get(service)


def end_of_life(name: str, service: str, today: date) -> str | None:
    """A sentence about a model that has ended, or does so within WARN_DAYS; otherwise None."""
    day = ends(name, service)
    if day is None or (left := (day - today).days) > WARN_DAYS:
        return None
    replacement = MODELS[name].replacement
    instead = f"; use {replacement} instead" if replacement else ""
    if left <= 0:
        return f"model {name} ended on {day}{instead}"
    return f"model {name} ends on {day}, {left} day{'s' if left > 1 else ''} left{instead}"
