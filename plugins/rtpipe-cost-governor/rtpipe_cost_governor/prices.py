"""What a model costs: the table that ships with this plugin, the operator's own, and how a name is found.

A rate of R USD for a million tokens is R micro-dollars for a token, so a bill is tokens times rates. All
arithmetic is with fractions: nothing is rounded before the whole of an entry is, up to a whole micro-dollar.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from importlib import resources
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

_DECIMAL: Final = re.compile(r"\d{1,9}(\.\d{1,12})?")
_SNAPSHOT: Final = re.compile(r"-(\d{4}-\d{2}-\d{2}|latest|preview)$")

Modality = Literal["text", "audio", "image"]
MODALITIES: Final[tuple[Modality, ...]] = ("text", "audio", "image")

_Usd = Annotated[str, Meta(pattern=_DECIMAL.pattern, description="USD, a decimal as text.")]


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one model costs: USD for a million tokens, or for a minute of audio; decimals as text."""

    date: Annotated[str, Meta(description="When this was the price, as YYYY-MM-DD.")]
    kind: Annotated[
        Literal["realtime", "transcription"], Meta(description="Whether it answers or transcribes.")
    ] = "realtime"
    text_in: Annotated[_Usd | None, Meta(description="Text that is read.")] = None
    text_cached: Annotated[_Usd | None, Meta(description="The same from the cache; unset: no discount.")] = (
        None
    )
    text_out: Annotated[_Usd | None, Meta(description="Text that is written.")] = None
    audio_in: Annotated[_Usd | None, Meta(description="Audio that is heard.")] = None
    audio_cached: Annotated[_Usd | None, Meta(description="The same from the cache.")] = None
    audio_out: Annotated[_Usd | None, Meta(description="Audio that is spoken.")] = None
    image_in: Annotated[_Usd | None, Meta(description="Images that are seen.")] = None
    image_cached: Annotated[_Usd | None, Meta(description="The same from the cache.")] = None
    minute: Annotated[_Usd | None, Meta(description="A minute of audio, where time is billed.")] = None

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("date", "kind") and value is not None and not _DECIMAL.fullmatch(value):
                raise ValueError(f'{field.name} {value!r} is no amount: write a decimal like "0.40"')
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.date):
            raise ValueError(f"date {self.date!r} is no date: write YYYY-MM-DD")

    def rate(self, name: str) -> Fraction | None:
        """Micro-dollars for a token, or under ``second`` for a second; None where it is not offered."""
        if name == "second":
            return None if self.minute is None else Fraction(self.minute) * 1_000_000 / 60
        value = getattr(self, name)
        if value is None and name.endswith("_cached"):
            return self.rate(name.removesuffix("_cached") + "_in")
        return None if value is None else Fraction(value)


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """The rates of one model. *found* is the name they stand under, empty where the model is not known."""

    model: str
    rates: Rates
    found: str

    @property
    def known(self) -> bool:
        return bool(self.found)


class Table:
    """Prices by name."""

    def __init__(self, own: Mapping[str, Rates], aliases: Mapping[str, str]) -> None:
        """*own* are the operator's, which come first; *aliases* say what his deployments really are."""
        self._rates = {**shipped(), **own}
        self._aliases = aliases
        # Once: a model without a price is looked up at every dial.
        self._dearest = {kind: self._highest(kind) for kind in ("realtime", "transcription")}

    def price(self, model: str, upstream: str, kind: str = "realtime") -> Price:
        """The price of *model* at an *upstream* of this kind (openai, azure, sim)."""
        name = self._aliases.get(model, model)
        for candidate in (name, _SNAPSHOT.sub("", name)):
            for place in (f"{upstream}/{candidate}", candidate):
                if place in self._rates:
                    return Price(model=model, rates=self._rates[place], found=place)
        return Price(model=model, rates=self._dearest[kind], found="")

    def _highest(self, kind: str) -> Rates:
        """For a model nobody knows: of each rate the highest there is."""
        columns: dict[str, str] = {}
        for rates in self._rates.values():
            if rates.kind != kind:
                continue
            for name in ("text_in", "text_out", "audio_in", "audio_out", "image_in", "minute"):
                value = getattr(rates, name)
                if value is not None and Fraction(value) > Fraction(columns.get(name, "0")):
                    columns[name] = value
        return Rates(date="0000-00-00", kind="realtime", **columns)


def is_exact(price: Price) -> bool:
    """Whether the price is that of this very name, not of its family."""
    return price.found.rpartition("/")[2] == price.model


def shipped() -> dict[str, Rates]:
    """The table that comes with this plugin."""
    text = resources.files("rtpipe_cost_governor").joinpath("prices.toml").read_text("utf-8")
    return msgspec.toml.decode(text, type=dict[str, Rates])
