"""The fields of users that a filter can name."""

from sqlmodel import col

from app.filters.fields import Field, Kind, collection
from app.users.models import User

USERS = collection(
    "users",
    Field("id", Kind.SEARCHED_TEXT, col(User.id)),
    Field("name", Kind.SEARCHED_TEXT, col(User.name)),
    Field("role", Kind.TEXT, col(User.role)),
    Field("language", Kind.TEXT, col(User.language)),
    Field("created_at", Kind.TIME, col(User.created_at)),
    Field("updated_at", Kind.TIME, col(User.updated_at)),
    Field("last_active", Kind.TIME, col(User.last_active_at)),
    Field("deactivated", Kind.BOOLEAN, col(User.deactivated_at).is_not(None)),
    Field("teams", Kind.LABELS, col(User.teams)),
    custom=col(User.custom),
    aliases={"team": "teams"},
)
