"""The control plane: keys, sessions, deployments, policies, rules, price entries and the audit log.

Small, relational, apart from the facts.

Secrets are stored as HMAC-SHA256 digests under a pepper that lives in a file beside the database, so that neither a
copy of the database nor a backup of it opens a door; those that have to be read again are encrypted under it. A key
reads `mk_<scope>_<id>_<secret>`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Integer,
    String,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)  # fmt: skip

from millicent.warehouse import declaring, deployments, policies, price_entries, repricings, rules
from millicent.warehouse.declaring import Declared
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.instants import Instant
from millicent.warehouse.policies import Policy
from millicent.warehouse.repricings import ClosedPeriod, Repricing
from millicent.warehouse.rules import Rule

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

    from millicent.pricing.entries import BookEntry
    from millicent.warehouse.query import Filter

Scope = Literal["ingest", "read", "setup", "operator"]
SESSION_LIFE: Final = timedelta(hours=24)
KEY_LIFE: Final = timedelta(days=365)
SETUP_LIFE: Final = timedelta(days=7)
DEFAULT_TENANT: Final = "default"
DECLARED: Final = "millicent.toml"
"""Author of what is declared in the file of that name, which nobody else changes."""

metadata: Final = rules.metadata
tenants: Final = Table("tenants", metadata, Column("id", String, primary_key=True), Column("name", String))
keys: Final = Table(
    "keys", metadata,
    Column("id", String, primary_key=True), Column("tenant", String, nullable=False),
    Column("scope", String, nullable=False), Column("name", String, nullable=False),
    Column("digest", String, nullable=False), Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False), Column("revoked_at", Instant),
)  # fmt: skip
sessions: Final = Table(
    "sessions", metadata,
    Column("digest", String, primary_key=True), Column("tenant", String, nullable=False),
    Column("created_at", Instant, nullable=False), Column("expires_at", Instant, nullable=False),
)  # fmt: skip
audit: Final = Table(
    "audit", metadata,
    Column("id", Integer, primary_key=True), Column("at", Instant, nullable=False),
    Column("tenant", String, nullable=False), Column("actor", String, nullable=False),
    Column("action", String, nullable=False), Column("detail", JSON, nullable=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """An ingest or read key as it may be shown: everything but its secret."""

    id: str
    tenant: str
    scope: Scope
    name: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Change:
    """A transaction on behalf of a tenant; what `record` notes in the audit log commits with it."""

    connection: Connection
    tenant: str
    actor: str

    def record(self, action: str, detail: dict[str, Any]) -> None:
        """Note what is done; `detail` is JSON."""
        _record(self.connection, self.tenant, self.actor, action, detail)

    def only_by(self, author: str | None, what: str) -> None:
        """Leave what is declared to the file that declares it.

        Args:
            author: who set it.
            what: how it is called in a sentence.

        Raises:
            ValueError: the file set it, and this is somebody else's change.
        """
        if author == DECLARED != self.actor:
            raise ValueError(f"{what} is declared in {DECLARED}: change it there, and start again")


class Control:
    """The control plane in one SQLite file.

    Args:
        directory: where `control.db` and the pepper live; created if missing, readable by the owner alone.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pepper = _pepper(directory / "pepper")
        path = directory / "control.db"
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # its journals take its mode
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _pragmas)
        _migrate(self._engine)
        path.chmod(0o600)

    def create_key(self, scope: Scope, name: str, tenant: str = DEFAULT_TENANT, actor: str = "operator") -> str:
        """Make a key and return it whole; it cannot be shown again.

        Raises:
            ValueError: `scope` is not one of ingest, read, setup, operator, or there is no such tenant.
        """
        if scope not in get_args(Scope):
            raise ValueError(f"scope {scope!r} is not one of {', '.join(get_args(Scope))}")
        key_id, secret = secrets.token_hex(6), secrets.token_hex(24)
        key = f"mk_{scope}_{key_id}_{secret}"
        key += f"{zlib.crc32(key.encode()):08x}"
        now = datetime.now(UTC)
        life = SETUP_LIFE if scope == "setup" else KEY_LIFE
        row = {"id": key_id, "tenant": tenant, "scope": scope, "name": name, "digest": self._digest(key),
               "created_at": now, "expires_at": now + life}  # fmt: skip
        with self._engine.begin() as connection:
            _require(connection, tenant)
            connection.execute(insert(keys).values(row))
            _record(connection, tenant, actor, "key.create", {"id": key_id, "scope": scope, "name": name})
        return key

    def check(self, presented: str, *scopes: Scope) -> Key | None:
        """The live key that `presented` is, if it has one of `scopes`; the same work is done for an unknown one."""
        parts = presented.split("_")
        key_id = parts[2] if len(parts) == 4 else ""
        with self._engine.connect() as connection:
            row = connection.execute(select(keys).where(keys.c.id == key_id)).mappings().one_or_none()
        matches = hmac.compare_digest(row["digest"] if row else self._digest(""), self._digest(presented))
        if row is None or not matches or row["scope"] not in scopes:
            return None
        key = _key(dict(row))
        live = key.revoked_at is None and datetime.now(UTC) < key.expires_at
        return key if live else None

    def keys(self, tenant: str = DEFAULT_TENANT) -> list[Key]:
        """Every key of a tenant, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(keys).where(keys.c.tenant == tenant).order_by(keys.c.created_at)
            ).mappings()
            return [_key(dict(row)) for row in rows]

    def revoke(self, key_id: str, tenant: str = DEFAULT_TENANT, actor: str = "operator") -> bool:
        """End a key now; False when there is none of that id."""
        mine = (keys.c.id == key_id) & (keys.c.tenant == tenant)
        with self._engine.begin() as connection:
            first = func.coalesce(keys.c.revoked_at, datetime.now(UTC))
            found = connection.execute(update(keys).where(mine).values(revoked_at=first)).rowcount == 1
            if found:
                _record(connection, tenant, actor, "key.revoke", {"id": key_id})
        return found

    def open_session(self, setup_token: str) -> str | None:
        """Trade a set-up token, once, for a session id; None when it is not a live one."""
        key = self.check(setup_token, "setup")
        if key is None:
            return None
        session, now = secrets.token_hex(32), datetime.now(UTC)
        unused = (keys.c.id == key.id) & keys.c.revoked_at.is_(None)
        with self._engine.begin() as connection:
            if connection.execute(update(keys).where(unused).values(revoked_at=now)).rowcount != 1:
                return None
            row = {"digest": self._digest(session), "tenant": key.tenant, "created_at": now,
                   "expires_at": now + SESSION_LIFE}  # fmt: skip
            connection.execute(insert(sessions).values(row))
            _record(connection, key.tenant, "setup token", "session.open", {"key": key.id})
        return session

    def session_tenant(self, session: str) -> str | None:
        """Tenant of a live session."""
        live = (sessions.c.digest == self._digest(session)) & (sessions.c.expires_at > datetime.now(UTC))
        with self._engine.connect() as connection:
            return connection.execute(select(sessions.c.tenant).where(live)).scalar_one_or_none()

    def declare(self, deployment: Deployment, tenant: str = DEFAULT_TENANT, actor: str = "operator") -> Declared:
        """Declare one deployment; see `declare_all`."""
        return self.declare_all([deployment], tenant, actor)[0]

    def declare_all(
        self, told: Sequence[Deployment], tenant: str = DEFAULT_TENANT, actor: str = "operator", *,
        replacing: bool = False, dry_run: bool = False,
    ) -> list[Declared]:  # fmt: skip
        """Add deployments, or new periods of them, all or none: an open period of a name ends where the next starts.

        What holds already is not added again. `replacing` takes the place of periods that began at the same hour;
        those that begin in this hour or later are replaced anyway. `dry_run` stores nothing.

        Raises:
            ValueError: there is no such tenant.
            BadDeploymentsError: naming all that is wrong; see `millicent.warehouse.declaring.declare`.
        """
        with self._engine.begin() as connection:
            _require(connection, tenant)
            now = datetime.now(UTC)
            declared = declaring.declare(connection, tenant, told, now, replacing=replacing, dry_run=dry_run)
            for one in () if dry_run else declared:
                if one.outcome != "unchanged":
                    detail = {"outcome": one.outcome, **deployments.written(one.deployment)}
                    _record(connection, tenant, actor, "deployment.declare", detail)
        return declared

    def deployments(self, tenant: str | None = None) -> list[tuple[str, Deployment]]:
        """(tenant, deployment period), by name and start; all tenants when none is named."""
        with self._engine.connect() as connection:
            return deployments.stored(connection, tenant)

    def set_policy(self, policy: Policy, tenant: str = DEFAULT_TENANT, actor: str = "operator") -> Policy:
        """Have an allocation policy hold from its hour on; returns it as stored, or the one that says the same already.

        Raises:
            ValueError: there is no such tenant, or it would hold in a closed period.
        """
        with self._engine.begin() as connection:
            _require(connection, tenant)
            kept, new = policies.store(connection, tenant, policy, actor, datetime.now(UTC))
            if new:
                _record(connection, tenant, actor, "policy.set", policies.written(kept))
        return kept

    def policies(self, tenant: str | None = None) -> list[tuple[str, Policy]]:
        """(tenant, allocation policy) by hour, one an hour; all tenants when none is named."""
        with self._engine.connect() as connection:
            return policies.stored(connection, tenant)

    def add_rule(self, rule: Rule, tenant: str = DEFAULT_TENANT, actor: str = "operator") -> Rule:
        """Add an attribution rule at its position, or as the last; returns it as stored.

        Raises:
            ValueError: there is no such tenant, or it has as many rules as it may have.
        """
        with self._engine.begin() as connection:
            _require(connection, tenant)
            added = rules.store(connection, tenant, rule, actor, datetime.now(UTC))
            _record(connection, tenant, actor, "rule.add", rules.written(added))
        return added

    def remove_rule(self, rule_id: int, tenant: str = DEFAULT_TENANT, actor: str = "operator") -> bool:
        """Take a rule away; False when there is none of that id. The audit log keeps it whole."""
        with self._engine.begin() as connection:
            gone = rules.drop(connection, tenant, rule_id)
            if gone is not None:
                _record(connection, tenant, actor, "rule.remove", rules.written(gone))
        return gone is not None

    def rules(self, tenant: str | None = None) -> list[tuple[str, Rule]]:
        """(tenant, rule), by position; all tenants when none is named."""
        with self._engine.connect() as connection:
            return rules.stored(connection, tenant)

    def add_prices(
        self, entries: Sequence[BookEntry], tenant: str = DEFAULT_TENANT, actor: str = "operator"
    ) -> list[BookEntry]:
        """Add price entries, all or none; returns them as stored. What a live entry says already is not added again.

        Raises:
            ValueError: there is no such tenant, or it would have more entries than it may have.
        """
        with self._engine.begin() as connection:
            _require(connection, tenant)
            kept, new = price_entries.store(connection, tenant, entries, actor, datetime.now(UTC))
            for entry in new:
                _record(connection, tenant, actor, "price.add", {"id": entry.id, **price_entries.body(entry)})
        return kept

    def retire_price(self, entry_id: int, tenant: str = DEFAULT_TENANT, actor: str = "operator") -> bool:
        """End a price entry now; False when there is no live one of that id. It is kept, and listed as retired."""
        with self._engine.begin() as connection:
            gone = price_entries.retire(connection, tenant, entry_id, datetime.now(UTC))
            if gone is not None:
                _record(connection, tenant, actor, "price.retire", {"id": gone.id, **price_entries.body(gone)})
        return gone is not None

    def prices(self, tenant: str | None = None, *, retired: bool = False) -> list[tuple[str, BookEntry]]:
        """(tenant, price entry) in the order they were added; all tenants when none is named."""
        with self._engine.connect() as connection:
            return price_entries.stored(connection, tenant, retired=retired)

    def close_period(self, tenant: str, start: datetime, end: datetime, actor: str = "operator") -> ClosedPeriod:
        """Close whole UTC days that are over: stored amounts of calls that began in `[start, end)` do not move then.

        Raises:
            ValueError: there is no such tenant, or the period is not of whole UTC days in the past, is empty or
                overlaps one that is closed.
        """
        with self._engine.begin() as connection:
            _require(connection, tenant)
            period = repricings.close(connection, tenant, start, end, actor, datetime.now(UTC))
            told = {"start": period.start.isoformat(), "end": period.end.isoformat()}
            _record(connection, tenant, actor, "period.close", told)
        return period

    def closed_periods(self, tenant: str) -> list[ClosedPeriod]:
        """Closed periods, oldest first; they do not overlap."""
        with self._engine.connect() as connection:
            return repricings.closed(connection, tenant)

    @contextmanager
    def closings(self) -> Iterator[list[tuple[str, ClosedPeriod]]]:
        """(tenant, closed period) of every tenant; nobody in any process closes another until the block ends.

        Others wait for whatever they write here, so be quick.
        """
        with self._engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield repricings.closings(connection)

    def open_repricing(
        self, tenant: str, start: datetime, end: datetime, version: str, filters: Sequence[Filter] = (), *,
        actor: str = "operator", undo_of: int | None = None,
    ) -> Repricing:  # fmt: skip
        """Ask for a run; see `Repricing`.

        Raises:
            ValueError: there is no such tenant, the period is empty, or what it takes back is no finished run of the
                tenant or is taken back already.
        """
        now = datetime.now(UTC)
        run = Repricing(id=0, tenant=tenant, actor=actor, start=start, end=end, filters=tuple(filters),
                        version=version, undo_of=undo_of, created_at=now)  # fmt: skip
        with self._engine.begin() as connection:
            _require(connection, tenant)
            run = repricings.begin(connection, run)
            told = {"run": run.id, "start": start.isoformat(), "end": end.isoformat(), "version": version,
                    "filters": repricings.told(run.filters), "undo_of": undo_of}  # fmt: skip
            _record(connection, tenant, actor, "reprice.ask", told)
        return run

    def repricings(self, tenant: str | None = None, *, unfinished: bool = False) -> list[Repricing]:
        """Runs in the order they were asked for; of all tenants when none is named."""
        with self._engine.connect() as connection:
            return repricings.asked(connection, tenant, unfinished=unfinished)

    def finish_repricing(self, run_id: int, error: str | None = None, **told: Any) -> None:
        """Mark a run as finished, or as given up with `error`; what is `told` (JSON) stands in the audit log."""
        with self._engine.begin() as connection:
            run = repricings.finish(connection, run_id, error, datetime.now(UTC))
            if run is not None:
                detail = {"run": run.id, "version": run.version, "undo_of": run.undo_of, "error": error, **told}
                _record(connection, run.tenant, run.actor, "reprice.fail" if error else "reprice.done", detail)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction, for modules that keep tables of their own here."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def change(self, tenant: str, actor: str) -> Iterator[Change]:
        """The same for what somebody changes of a tenant.

        Raises:
            ValueError: there is no such tenant.
        """
        with self._engine.begin() as connection:
            _require(connection, tenant)
            yield Change(connection, tenant, actor)

    def note(self, tenant: str, actor: str, action: str, detail: dict[str, Any]) -> None:
        """Write into the audit log what was done to the facts; `detail` is JSON."""
        with self._engine.begin() as connection:
            _record(connection, tenant, actor, action, detail)

    def seal(self, text: str) -> str:
        """A secret that has to be read again, encrypted under a key made of the pepper."""
        return self._seal().encrypt(text.encode()).decode()

    def unseal(self, sealed: str) -> str:
        """What `seal` was given.

        Raises:
            ValueError: it was sealed under another pepper, or is damaged.
        """
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - the receiver starts without it

        try:
            return self._seal().decrypt(sealed).decode()
        except InvalidToken as error:
            raise ValueError(
                "a secret was sealed under another pepper: put back the file `pepper` that belongs to this control.db, "
                "or set the secret again"
            ) from error

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _seal(self) -> Fernet:
        from cryptography.fernet import Fernet  # noqa: PLC0415 - the receiver starts without it

        key = hmac.new(self._pepper, b"what is sealed in the control plane", hashlib.sha256).digest()
        return Fernet(base64.urlsafe_b64encode(key))

    def _digest(self, text: str) -> str:
        return hmac.new(self._pepper, text.encode(), hashlib.sha256).hexdigest()


def _key(row: dict[str, Any]) -> Key:
    names = ("id", "tenant", "scope", "name", "created_at", "expires_at", "revoked_at")
    return Key(**{name: row[name] for name in names})


def _require(connection: Any, tenant: str) -> None:
    known = connection.execute(select(tenants.c.id).order_by(tenants.c.id)).scalars().all()
    if tenant not in known:
        raise ValueError(f"tenant {tenant!r} is unknown: write {', '.join(known)}")


def _record(connection: Any, tenant: str, actor: str, action: str, detail: dict[str, Any]) -> None:
    row = {"at": datetime.now(UTC), "tenant": tenant, "actor": actor, "action": action, "detail": detail}
    connection.execute(insert(audit).values(row))


def _pepper(path: Path) -> bytes:
    """The pepper in `path`; made, whole or not at all, by whichever process comes first."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes()


def _pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(engine: Engine) -> None:
    folder = files("millicent.warehouse") / "control_migrations"
    newest = max(file.name.split("_")[0] for file in (folder / "versions").iterdir() if file.name.endswith(".py"))
    if inspect(engine).has_table("alembic_version"):
        with engine.connect() as connection:
            if connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == newest:
                return
    from alembic import command  # noqa: PLC0415 - 100 ms that only an out-of-date database pays
    from alembic.config import Config  # noqa: PLC0415 - likewise

    with as_file(folder) as path:
        config = Config()
        config.set_main_option("script_location", str(path))
        config.attributes["engine"] = engine
        command.upgrade(config, "head")
