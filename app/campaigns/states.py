"""The transition table of a campaign: what each action does in each status. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from app.errors import Conflict


class Status(StrEnum):
    """Where a campaign stands."""

    DRAFT = "DRAFT"
    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"
    COMPLETED = "COMPLETED"


class StatusReason(StrEnum):
    """Why the server, not a person, changed the status."""

    STOP_AT_REACHED = "STOP_AT_REACHED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    NOT_STARTABLE = "NOT_STARTABLE"
    SENDER_MISSING = "SENDER_MISSING"
    INTERNAL_FAULT = "INTERNAL_FAULT"
    STORAGE_FULL = "STORAGE_FULL"


# Pauses of a fault: the server resumes them by itself.
FAULTS = frozenset({StatusReason.INTERNAL_FAULT, StatusReason.STORAGE_FULL})
# Pauses in which planning stands still too.
STANDING = frozenset({StatusReason.QUOTA_EXCEEDED, *FAULTS})


class Action(StrEnum):
    """What a person may ask of a campaign."""

    START = "START"
    UNSCHEDULE = "UNSCHEDULE"
    STOP = "STOP"
    PAUSE = "PAUSE"
    RESUME = "RESUME"
    EDIT = "EDIT"
    DELETE = "DELETE"
    RETRY = "RETRY"


ENDED = frozenset({Status.STOPPED, Status.COMPLETED})
RUNNING = frozenset({Status.IN_PROGRESS, Status.PAUSED})
ACTIVE = frozenset({Status.SCHEDULED, *RUNNING})


@dataclass(frozen=True, slots=True)
class Refusal:
    """The action is not allowed; `advice` says what to do instead."""

    advice: str


ONCE = Refusal("a campaign is sent once: create a new one")
NOT_STARTED = Refusal("it has not been started")
RUNNING_NOW = Refusal("it is being sent: stop it first")
OVER = Refusal("it is over")
NOT_COMPLETED = Refusal("it has not completed yet")
STAYS_STOPPED = Refusal("a stopped campaign stays stopped: create a new one")

# What an action leads to from each status: the next status, None where nothing changes, or a refusal.
# START from DRAFT and SCHEDULED leads to SCHEDULED instead when scheduledFor is in the future.
_TABLE: dict[Action, dict[Status, Status | Refusal | None]] = {
    Action.START: {
        Status.DRAFT: Status.IN_PROGRESS,
        Status.SCHEDULED: Status.IN_PROGRESS,
        Status.IN_PROGRESS: Refusal("it has started already"),
        Status.PAUSED: Refusal("it has started already: resume it"),
        Status.STOPPED: ONCE,
        Status.COMPLETED: ONCE,
    },
    Action.UNSCHEDULE: {
        Status.DRAFT: Refusal("it is not scheduled"),
        Status.SCHEDULED: Status.DRAFT,
        Status.IN_PROGRESS: Refusal("it has started already: stop it instead"),
        Status.PAUSED: Refusal("it has started already: stop it instead"),
        Status.STOPPED: OVER,
        Status.COMPLETED: OVER,
    },
    Action.STOP: {
        Status.DRAFT: NOT_STARTED,
        Status.SCHEDULED: Status.STOPPED,
        Status.IN_PROGRESS: Status.STOPPED,
        Status.PAUSED: Status.STOPPED,
        Status.STOPPED: None,
        Status.COMPLETED: OVER,
    },
    Action.PAUSE: {
        Status.DRAFT: NOT_STARTED,
        Status.SCHEDULED: Refusal("it has not started yet: unschedule or stop it"),
        Status.IN_PROGRESS: Status.PAUSED,
        Status.PAUSED: None,
        Status.STOPPED: OVER,
        Status.COMPLETED: OVER,
    },
    Action.RESUME: {
        Status.DRAFT: NOT_STARTED,
        Status.SCHEDULED: Refusal("it has not started yet"),
        Status.IN_PROGRESS: Refusal("it is not paused"),
        Status.PAUSED: Status.IN_PROGRESS,
        Status.STOPPED: STAYS_STOPPED,
        Status.COMPLETED: OVER,
    },
    Action.EDIT: {
        Status.DRAFT: None,
        Status.SCHEDULED: None,
        Status.IN_PROGRESS: RUNNING_NOW,
        Status.PAUSED: RUNNING_NOW,
        Status.STOPPED: OVER,
        Status.COMPLETED: OVER,
    },
    Action.DELETE: {
        Status.DRAFT: None,
        Status.SCHEDULED: None,
        Status.IN_PROGRESS: RUNNING_NOW,
        Status.PAUSED: RUNNING_NOW,
        Status.STOPPED: None,
        Status.COMPLETED: None,
    },
    Action.RETRY: {
        Status.DRAFT: NOT_STARTED,
        Status.SCHEDULED: NOT_STARTED,
        Status.IN_PROGRESS: NOT_COMPLETED,
        Status.PAUSED: NOT_COMPLETED,
        Status.STOPPED: STAYS_STOPPED,
        Status.COMPLETED: Status.IN_PROGRESS,
    },
}


def move(action: Action, status: Status) -> Status | None:
    """The status that `action` leads to, None where it changes nothing. Raises `Conflict` where refused."""
    outcome = _TABLE[action][status]
    if isinstance(outcome, Refusal):
        raise Conflict(
            f"A campaign that is {status} cannot {_VERBS[action]}: {outcome.advice}.",
            path=["campaignId"],
            details={"status": status, "allowed": [allowed.value for allowed in allowed_actions(status)]},
        )
    return outcome


def allowed_actions(status: Status) -> list[Action]:
    """What can be asked of a campaign in this status and changes something."""
    changing = {Action.EDIT, Action.DELETE}
    return [
        action
        for action, row in _TABLE.items()
        if not isinstance(row[status], Refusal) and (row[status] is not None or action in changing)
    ]


_VERBS = {
    Action.START: "be started",
    Action.UNSCHEDULE: "be unscheduled",
    Action.STOP: "be stopped",
    Action.PAUSE: "be paused",
    Action.RESUME: "be resumed",
    Action.EDIT: "have its content changed",
    Action.DELETE: "be deleted",
    Action.RETRY: "be retried",
}
