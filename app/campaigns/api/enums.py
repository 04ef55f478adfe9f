"""The words of campaigns, described for clients. Their names are those of `states` and `ledger.models`."""

from enum import Enum

import strawberry


@strawberry.enum(description="Where a campaign stands.")
class CampaignStatus(Enum):
    """`states.Status`."""

    DRAFT = strawberry.enum_value("DRAFT", description="Being written; nothing is sent.")
    SCHEDULED = strawberry.enum_value("SCHEDULED", description="Starts by itself at scheduledFor.")
    IN_PROGRESS = strawberry.enum_value("IN_PROGRESS", description="Being sent.")
    PAUSED = strawberry.enum_value("PAUSED", description="Nothing is sent until it is resumed.")
    STOPPED = strawberry.enum_value("STOPPED", description="Ended before everything was sent.")
    COMPLETED = strawberry.enum_value("COMPLETED", description="Ended: every target is settled.")


@strawberry.enum(description="Why the server, not a person, changed a campaign's status.")
class StatusReason(Enum):
    """`states.StatusReason`."""

    STOP_AT_REACHED = strawberry.enum_value("STOP_AT_REACHED", description="Its stopAt came.")
    QUOTA_EXCEEDED = strawberry.enum_value(
        "QUOTA_EXCEEDED", description="The month's message capacity does not hold the audience."
    )
    NOT_STARTABLE = strawberry.enum_value(
        "NOT_STARTABLE",
        description="When its time came it lacked what a start needs; statusMessage says what.",
    )
    SENDER_MISSING = strawberry.enum_value(
        "SENDER_MISSING", description="The sender was deleted or deactivated while it ran."
    )
    INTERNAL_FAULT = strawberry.enum_value("INTERNAL_FAULT", description="The infrastructure keeps failing.")
    STORAGE_FULL = strawberry.enum_value("STORAGE_FULL", description="There is no room to write messages.")


@strawberry.enum(description="What can be asked of a campaign.")
class CampaignAction(Enum):
    """`states.Action`."""

    START = strawberry.enum_value("START", description="startCampaign.")
    UNSCHEDULE = strawberry.enum_value("UNSCHEDULE", description="unscheduleCampaign.")
    STOP = strawberry.enum_value("STOP", description="stopCampaign.")
    PAUSE = strawberry.enum_value("PAUSE", description="pauseCampaign.")
    RESUME = strawberry.enum_value("RESUME", description="resumeCampaign.")
    EDIT = strawberry.enum_value("EDIT", description="updateCampaign, of its content too.")
    DELETE = strawberry.enum_value("DELETE", description="deleteCampaign.")
    RETRY = strawberry.enum_value("RETRY", description="retryRecipients.")


@strawberry.enum(
    description="In which channels the sender becomes a member. Null: in those that are created."
)
class SenderMode(Enum):
    """`definition.SENDER_MODES`."""

    EXCLUDE = strawberry.enum_value("EXCLUDE", description="In none.")
    INCLUDE = strawberry.enum_value("INCLUDE", description="In every channel that is written to.")


@strawberry.enum(description="How the sender sees created channels. Null: like any other.")
class SenderVisibility(Enum):
    """`definition.SENDER_VISIBILITIES`."""

    HIDDEN = strawberry.enum_value("HIDDEN", description="Hidden.")
    ARCHIVED = strawberry.enum_value("ARCHIVED", description="Archived.")
