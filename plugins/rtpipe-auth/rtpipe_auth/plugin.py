"""The plugin: who is calling, for how long, and what its sessions are like."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

import msgspec

from rtpipe import (
    Command,
    ConfigError,
    ConnectRequest,
    Draft,
    Drop,
    Event,
    Health,
    OnError,
    Plugin,
    Principal,
    Refused,
    Response,
    Route,
    Secret,
    Session,
    StoreError,
    Verdict,
    on_client,
    on_server,
    reject,
)
from rtpipe.protocol import events
from rtpipe.protocol.beta import TRANSCRIPTION_UPDATE
from rtpipe.protocol.catalogue import Client, Server
from rtpipe_auth import client_secrets, expiry
from rtpipe_auth.client_secrets import Minter
from rtpipe_auth.config import Config
from rtpipe_auth.credentials import is_token, missing_key, presented_key
from rtpipe_auth.guessing import Guessing
from rtpipe_auth.keys import KEYS, REVOKE
from rtpipe_auth.policy import POLICY_LABEL, Applied
from rtpipe_auth.registry import Registry, unknown_key

if TYPE_CHECKING:
    from rtpipe_auth.issuers import Issuers

LOCKED = "locked_by_policy"
SAFETY_IDENTIFIER = "openai-safety-identifier"
"""The header by which OpenAI is told on whose behalf a client secret is made."""
MIN_SIGNING_KEY_CHARS = 32


class State:
    """What is kept for one session."""

    def __init__(self) -> None:
        self.policy: Applied | None = None
        self.transcription: bool | None = None
        self.turn = expiry.Turn()


class Auth(Plugin[Config, State]):
    """Lets in who presents a configured key, a token or a client secret, or is a configured peer, and keeps
    the sessions of callers to their policies."""

    on_error: ClassVar[OnError] = "close"
    on_error_choices: ClassVar[tuple[OnError, ...]] = ("close",)  # nobody gets in because this failed

    now: Callable[[], float] = staticmethod(time.time)
    """The wall clock."""

    _registry: Registry
    _minter: Minter | None = None
    _issuers: "Issuers | None" = None

    # --- its life -------------------------------------------------------------------------------------------

    @classmethod
    def wants_persistence(cls, config: Config) -> bool:
        return any(
            caller.persist
            for callers in (config.keys, config.peers, config.certificates, config.issuers)
            for caller in callers
        )

    async def startup(self) -> None:
        """Read secrets and revocations; have the keys of issuers fetched."""
        self._registry = Registry(self.config, self.stage)
        self._guessing = Guessing()
        self._policies = {name: Applied(policy) for name, policy in self.config.policies.items()}
        if self.config.keys:
            await self._registry.load_revoked(self.store)
        if (options := self.config.client_secrets) is not None:
            keys = [_signing_key(each) for each in (options.signing_key, options.previous_key) if each]
            self._minter = Minter(keys, self.store, self._time)
        if self.config.issuers:
            from rtpipe_auth.issuers import Issuers  # here: it brings a cryptography library

            self._issuers = Issuers(self.config, self.start_soon, self._time)

    async def shutdown(self) -> None:
        """Close what connections there are."""
        if self._issuers is not None:
            await self._issuers.aclose()

    def _time(self) -> float:
        return self.now()

    # --- who is calling -------------------------------------------------------------------------------------

    async def authenticate(self, request: ConnectRequest) -> Principal:
        """The principal of the key in *request*; raises ``Refused`` otherwise, whatever came."""
        key = presented_key(request)
        if key is None:
            caller = self._registry.without_key(request)
            if caller is None:
                raise missing_key()
        else:
            await self._guessing.wait(request.address)
            try:
                caller = await self._holder(key)
            except Refused as refused:
                if refused.status == 401:
                    self._guessing.failed(request.address)
                raise
        if request.role not in caller.roles:
            what = "caller" if key is None else "key"
            raise Refused(
                403,
                "role_not_allowed",
                f"This {what} may not connect as {request.role!r}: its operator grants that with 'roles'.",
            )
        return caller

    async def _holder(self, key: str) -> Principal:
        caller = self._registry.holder(key)
        if caller is None and self._minter is not None and key.startswith(client_secrets.PREFIX):
            caller = await self._minter.holder(key)
            if not self._registry.knows(caller.credential):
                raise unknown_key()  # what it was made with is no longer good
        elif caller is None and self._issuers is not None and is_token(key):
            entry, caller = await self._issuers.holder(key)
            credential = self._registry.credential("issuer", entry.id)
            caller = msgspec.structs.replace(caller, credential=credential)
        if caller is None:
            raise unknown_key()
        return caller

    def still_allowed(self, principal: Principal) -> bool | None:
        """Whether what somebody was let in by is still good."""
        return self._registry.knows(principal.credential)

    def current_limits(self, principal: Principal) -> Mapping[str, str | int | float] | None:
        """What the configuration says by now."""
        return self._registry.limits(principal.credential)

    # --- routes and commands --------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """To revoke keys and, where there is a key to sign with, to make client secrets."""
        routes = [Route("POST", f"/{self.stage}{REVOKE}", self._revoke, access="admin")]
        if self._minter is not None:
            # Open to all because it asks for credentials itself, also on a listener that is open.
            routes.append(Route("POST", client_secrets.PATH, self._mint, access="open"))
        return routes

    async def _mint(self, request: ConnectRequest, body: bytes) -> Response:
        assert self._minter is not None
        caller = await self.authenticate(request)
        key = presented_key(request)
        if key is not None and key.startswith(client_secrets.PREFIX):
            raise Refused(403, "not_allowed", "A client secret cannot make another: use your own key.")
        end_user = request.header(SAFETY_IDENTIFIER)
        return Response(200, await self._minter.mint(caller, body, end_user))

    async def _revoke(self, request: ConnectRequest, _: bytes) -> Response:
        caller, prefix = ("".join(request.query.get(name, ())) for name in ("id", "sha256"))
        try:
            revoked = await self._registry.revoke(self.store, caller, prefix)
        except StoreError as exc:
            self.judge_again()
            raise Refused(500, "not_kept", f"The key is refused until the next start, but: {exc}") from None
        if not revoked:
            raise Refused(404, "no_such_key", f"No key of {caller!a} with such a hash is let in.")
        self.judge_again()
        return Response(200, {"revoked": revoked})

    @classmethod
    def commands(cls) -> list[Command]:
        """``rtpipe keys new ID``, ``rtpipe keys revoke ID``."""
        return [KEYS]

    def health(self) -> Health:
        """How many are let in, and whose keys cannot be had."""
        count, peers, certificates = (
            self._registry.count,
            len(self.config.peers),
            len(self.config.certificates),
        )
        sentence = f"{count} {'key is' if count == 1 else 'keys are'} let in"
        if peers:
            sentence += f", and {peers} {'peer' if peers == 1 else 'peers'} without one"
        if certificates:
            sentence += f", and {certificates} {'certificate' if certificates == 1 else 'certificates'}"
        if self.config.issuers:
            sentence += f", and tokens of {', '.join(each.id for each in self.config.issuers)}"
        failure = None if self._issuers is None else self._issuers.failure()
        if failure is not None:
            return Health(ok=False, sentence=failure)
        return Health(ok=True, sentence=sentence)

    # --- its sessions ---------------------------------------------------------------------------------------

    def session_open(self, session: Session[State]) -> None:
        """Find the policy; watch the end of what the caller was let in by."""
        name = session.principal.labels.get(POLICY_LABEL)
        if name is not None and name not in self._policies:
            raise Refused(403, "no_such_policy", "The policy for this caller is not configured.")
        session.state.policy = self._policies[name] if name is not None else None
        ours = {self._registry.credential("issuer", each.id): each for each in self.config.issuers}
        issuer = ours.get(session.principal.credential)
        if issuer is not None and session.principal.expires_at is not None and issuer.on_expiry != "ignore":
            finish = issuer.on_expiry == "finish_turn"
            session.start_soon(expiry.end_session, session, session.state.turn, self._time, finish)

    def configure(self, session: Session[State], draft: Draft) -> None:
        """What the policy says, over or under what the client asks."""
        state = session.state
        if state.transcription is None:  # as it was opened: what the client says later is no matter
            state.transcription = draft.get("type") == "transcription"
        if state.policy is not None:
            state.policy.configure(draft, transcription=state.transcription)

    @on_client(Client.SESSION_UPDATE)
    def judge_update(self, session: Session[State], event: Event) -> Verdict:
        """A client's wishes for what is set or locked go no further."""
        update = events.update_of(event.data)
        policy = session.state.policy
        if policy is None or event.origin != "client" or update is None:
            return None
        found, rest = policy.of_update(update, transcription=bool(session.state.transcription))
        return _judged(policy, event, found, update, rest, "session")

    @on_client(Client.RESPONSE_CREATE)
    def judge_create(self, session: Session[State], event: Event) -> Verdict:
        """Nor do overrides of what is locked."""
        response = events.response_of(event.data)
        policy = session.state.policy
        if policy is None or event.origin != "client" or response is None:
            return None
        found, rest = policy.of_create(response)
        return _judged(policy, event, found, response, rest, "response")

    @on_client(Client.ITEM_CREATE)
    def judge_item(self, session: Session[State], event: Event) -> Verdict:
        """Nor do instructions or tools that come as items. There is nothing of these to go on."""
        policy = session.state.policy
        if (
            policy is None
            or event.origin != "client"
            or not policy.is_locked_item(events.item_of(event.data))
        ):
            return None
        return reject(event, LOCKED, "Instructions and tools are set by the operator of this gateway.")

    @on_client(TRANSCRIPTION_UPDATE)
    def judge_retired_update(self, session: Session[State], event: Event) -> Verdict:
        """An update under its retired name, which is not composed with what the policy says."""
        if session.state.policy is None or event.origin != "client":
            return None
        return reject(event, LOCKED, "Use session.update: this event is not taken here.")

    @on_server(Server.RESPONSE_CREATED, Server.RESPONSE_DONE)
    def watch_responses(self, session: Session[State], event: Event) -> Verdict:
        """Know whether a turn is going on; hide what a response repeats of the policy."""
        data = event.data
        session.state.turn.saw(event.type, data)
        policy, response = session.state.policy, events.response_of(data)
        if policy is None or response is None:
            return None
        seen = policy.as_seen(response)
        return None if seen is response else event.replace({**data, "response": seen})

    @on_server(Server.ERROR)
    def judge_error(self, session: Session[State], event: Event) -> Verdict:
        """An error that quotes what the client is not to see says only which event it is about."""
        policy, data = session.state.policy, event.data
        if policy is None:
            return None
        seen = policy.error_as_seen(data)
        return None if seen is data else event.replace(seen)

    @on_server(Server.OUTPUT_ITEM_ADDED, Server.ITEM_ADDED, Server.ITEM_CREATED)
    def hide_tool_lists(self, session: Session[State], event: Event) -> Verdict:
        """What an MCP server offers is part of the tools that the client is not to see."""
        policy = session.state.policy
        if policy is not None and policy.hides_item(events.item_of(event.data)):
            item_id = events.item_id_of(event.data)
            if item_id is None:
                return Drop("it cannot be hidden", ours=True)
            session.hide(item_id)
        return None


def _judged(
    policy: Applied,
    event: Event,
    found: list[str],
    before: dict[str, object],
    rest: dict[str, object],
    key: str,
) -> Verdict:
    if found and policy.rejects:
        names = ", ".join(f"{key}.{path}" for path in found)
        return reject(event, LOCKED, f"The operator of this gateway does not let clients set {names}.")
    return None if rest == before else event.replace({**event.data, key: rest})


def _signing_key(secret: Secret) -> bytes:
    key = secret.reveal()
    if len(key) < MIN_SIGNING_KEY_CHARS:
        raise ConfigError(
            f"a signing key of client_secrets has fewer than {MIN_SIGNING_KEY_CHARS} characters: "
            "make one with `openssl rand -hex 32`"
        )
    return key.encode()
