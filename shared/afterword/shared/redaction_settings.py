"""What is done about secrets in what users write."""

from __future__ import annotations

from pydantic import Field

from afterword.shared.setting_record import Record
from afterword.shared.setting_types import ClassPath, Names, RedactionMode, RedactionModes


class RedactionSettings(Record):
    """What is done about secrets (keys, passwords, card numbers) in what users write."""

    redaction: RedactionMode = Field(
        "redact",
        description="`redact`: secrets are replaced by a marker in what is kept to be read again; "
        "`refuse`: a message with one is refused; `report`: they are counted; `off`: nothing",
    )
    redaction_by_tenant: RedactionModes = Field(
        default_factory=dict,
        description='tenants with another mode, as JSON: `{"acme": "refuse"}`',
    )
    redacted_kinds: Names = Field(
        default_factory=tuple,
        description="kinds of secrets that are looked for, separated by commas; unset: all but "
        "`iban`",
    )
    redactor: ClassPath | None = Field(
        None,
        description="a class of yours that finds secrets, as `package.module:Class`; unset: ours",
    )
